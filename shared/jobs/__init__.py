"""The stories told about a video, from submit to result, over the rows of Postgres."""
