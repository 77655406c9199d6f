"""The grader of final answers: extraction, exact and numeric comparison, computer algebra in killable processes."""
