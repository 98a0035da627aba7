"""Whether a scaler is at work, told by its Lease: nothing that a pool's status says is current without one."""

from dataclasses import dataclass
from datetime import datetime

from onlinerlhf.scaler.commands.cluster import Cluster, Object
from onlinerlhf.scaler.commands.kinds import COMPONENT_LABEL, OURS
from onlinerlhf.scaler.commands.pools import moment
from onlinerlhf.scaler.commands.waiting import ago
from onlinerlhf.scaler.kinds import DEPLOYMENT, LEASE


@dataclass(frozen=True, slots=True, kw_only=True)
class Leadership:
    """Who leads, as of the API server's clock."""

    holder: str
    """Empty: nobody."""
    renewed: datetime | None
    age_seconds: float | None
    lease_seconds: float
    is_deployed: bool
    """Whether the namespace has a scaler at all; KEDA or nobody may size the pools instead."""

    @property
    def is_current(self) -> bool:
        """Whether a scaler has shown in time that it is alive."""
        return bool(self.holder) and self.age_seconds is not None and self.age_seconds <= self.lease_seconds

    @property
    def words(self) -> str:
        """One line for people."""
        if self.is_current:
            return f"scaler: {self.holder} leads"
        if not self.is_deployed and self.renewed is None:
            return "no scaler in this namespace: nothing sizes the pools from their backlog"
        if self.age_seconds is None:
            return "no scaler has ever led here: pools keep their size"
        last = self.holder or "the last one"
        silent = f"{last} has been silent for {ago(self.age_seconds)}"
        return f"no scaler leads: {silent}; what pools say is as old, and their size holds"


def leadership_of(lease: Object | None, *, now: datetime, is_deployed: bool) -> Leadership:
    """From the Lease, or None where there is none."""
    spec = (lease or {}).get("spec") or {}
    renewed = moment(spec.get("renewTime"))
    return Leadership(
        holder=spec.get("holderIdentity") or "",
        renewed=renewed,
        age_seconds=None if renewed is None else max(0.0, (now - renewed).total_seconds()),
        lease_seconds=float(spec.get("leaseDurationSeconds") or 15),
        is_deployed=is_deployed,
    )


async def read_leadership(cluster: Cluster) -> Leadership:
    """The newest Lease of a scaler in the namespace."""
    deployments = await cluster.items(DEPLOYMENT, labels=f"{OURS},{COMPONENT_LABEL}=scaler")
    leases = [each for each in await cluster.items(LEASE) if each["metadata"]["name"].endswith("-scaler")]
    newest = max(leases, key=lambda each: (each.get("spec") or {}).get("renewTime") or "", default=None)
    return leadership_of(newest, now=cluster.now, is_deployed=bool(deployments))
