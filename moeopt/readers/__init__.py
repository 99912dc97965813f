"""Files of traffic, one module a format; found through the entry-point group `moeopt.readers`."""
