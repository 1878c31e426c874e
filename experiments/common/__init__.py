"""What experiments share: options, features, stages, sample photographs, figures and tables."""
