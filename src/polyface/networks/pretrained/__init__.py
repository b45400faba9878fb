"""Published weights from packages that ship them, or from files: nothing is downloaded at run time."""
