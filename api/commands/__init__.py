"""What the commands of `lco` do, imported when one of them runs."""
