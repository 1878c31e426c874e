"""Images, data sets and the loader that feeds them to the device."""
