"""Claims runs, supervises one process tree per run, and repairs what crashed. Never loads torch itself."""
