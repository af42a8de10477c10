"""The learner's edition: blanks, their checks, the starter, and the grading of submissions."""
