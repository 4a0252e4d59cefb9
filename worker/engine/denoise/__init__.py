"""From noise to latents: the schedule of a job, its loop, and what a resume needs."""
