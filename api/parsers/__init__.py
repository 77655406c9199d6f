"""What `lco` understands, one file a group of commands: each adds its parsers, and names the function that runs."""
