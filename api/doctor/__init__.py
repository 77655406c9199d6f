"""What `lco doctor` looks at: the machine and the services of an installation. Nothing here loads torch."""
