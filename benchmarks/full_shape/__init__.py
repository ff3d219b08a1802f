"""The full shape of MSVD-QA through all verbs, as a user gives the commands."""
