"""What people and signals want of a group: take jobs or not, keep the one it has or not."""

from shared.jobs.groups import DrainMode


class Orders:
    """The newest wish of each kind. One thread writes each; any may read."""

    def __init__(self) -> None:
        """Begin as a group that serves."""
        self.leaving = False  # for good: the process ends
        self.handing_back = False  # what it has, too
        self.drain: DrainMode | None = None  # until somebody resumes the group

    @property
    def takes_jobs(self) -> bool:
        """Tell whether another job may be claimed."""
        return not (self.leaving or self.drain)

    @property
    def keeps_its_job(self) -> bool:
        """Tell whether the running job may go on."""
        return not (self.handing_back or self.drain == "requeue")
