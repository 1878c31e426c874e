"""What the build of the site makes from the code."""
