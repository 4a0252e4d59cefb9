"""The choice of the next job for a group: one SELECT whose cost does not grow with history."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import TextClause, text

# For each tenant and each model of the offer the first rows of the claim index that are due.
# Among these: priority, the tenant that has used least, the warm model, the oldest. Shares are told
# apart coarsely, so that warmth may decide between tenants that are about level; and it decides for
# a while only: whoever has waited for long goes before those that came later. More than one
# candidate is looked up and locked, so that parents that claim at once do not fight for one row.
#
# States stand in the text and not in parameters: only then can a partial index be proven to fit.
_BEST: Final = """
(SELECT chosen.id
   FROM (SELECT head.id, row_number() OVER (
                  ORDER BY head.priority DESC, floor(tenants.share / :coarse),
                           head.model <> :warm
                           AND head.created_at > now() - make_interval(secs => :patience),
                           head.id) AS place
           FROM tenants
          CROSS JOIN unnest(CAST(:models AS text[])) AS offered (model)
          CROSS JOIN LATERAL (
                SELECT id, priority, model, created_at
                  FROM videos
                 WHERE tenant = tenants.name AND model = offered.model AND state = 'queued'
                   AND run_after <= now()
                   AND (start_by IS NULL OR start_by > now())
                   AND (finish_by IS NULL OR finish_by > now())
                   AND (group_wanted IS NULL OR group_wanted = :group)
                   AND NOT EXISTS (SELECT FROM pauses WHERE what = 'dispatch')
                 ORDER BY priority DESC, id
                 LIMIT 16) AS head
          ORDER BY place
          LIMIT 16) AS best
   JOIN videos AS chosen ON chosen.id = best.id AND chosen.state = 'queued'
  ORDER BY best.place
  LIMIT 1
    FOR UPDATE OF chosen SKIP LOCKED)
"""

_DUE: Final = """
SELECT known.model, least(count(*), :most) AS due
  FROM unnest(CAST(:models AS text[])) AS known (model)
 CROSS JOIN tenants
 CROSS JOIN LATERAL (
       SELECT 1
         FROM videos
        WHERE tenant = tenants.name AND model = known.model AND state = 'queued'
          AND run_after <= now()
          AND (start_by IS NULL OR start_by > now())
          AND (finish_by IS NULL OR finish_by > now())
          AND NOT EXISTS (SELECT FROM pauses WHERE what = 'dispatch')
        LIMIT :most) AS waiting
 GROUP BY known.model
"""


_COARSE_S: Final = 30.0  # GPU-seconds over weight
_PATIENCE_S: Final = 600.0  # that a cold model waits for a warm one


@dataclass(frozen=True, slots=True)
class Offer:
    """What a group can take now."""

    group: str
    incarnation: str
    ranks: int
    models: tuple[str, ...]
    warm_model: str | None = None


def best(offer: Offer) -> TextClause:
    """Phrase the subquery that finds and locks the id of the job to run next."""
    return text(_BEST).bindparams(
        models=list(offer.models),
        warm=offer.warm_model or "",
        group=offer.group,
        coarse=_COARSE_S,
        patience=_PATIENCE_S,
    )


def due(models: tuple[str, ...], most: int) -> TextClause:
    """Phrase the count of due videos per model, no further than `most`."""
    return text(_DUE).bindparams(models=list(models), most=most)
