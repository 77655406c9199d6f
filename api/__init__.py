"""HTTP in; JSON and HTML out. Also the Python client and the `lco` command line."""
