"""One file each: what a SOURCE string can name."""
