"""Measurements that anybody can repeat: `./florin bench`."""
