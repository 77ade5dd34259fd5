"""The commands of `./florin`."""
