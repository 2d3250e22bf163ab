"""Any set of methods under one protocol: run, collect, show."""
