"""The checks of the blanks, one module per question.

The check of blank q1.loss is the function `loss` in `q1.py`. It raises WrongError if the learner's
code is wrong, and uses fakes for the neighbours of a blank. Its expected numbers do not come from
the finished code.
"""
