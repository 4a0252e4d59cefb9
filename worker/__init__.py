"""The parent of one GPU group and its ranks: Celery takes the ring, Postgres gives the job."""
