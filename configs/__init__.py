"""One file, one experiment: `metashot train NAME`."""
