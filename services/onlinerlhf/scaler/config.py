"""Settings of the scaler: section [scaler]."""

from pathlib import Path

from pydantic import Field, model_validator

from onlinerlhf.runtime.config import ServiceConfig


class ScalerConfig(ServiceConfig):
    """Which pools, whom to ask about the work, and how long a leader may be silent."""

    namespace: str | None = None
    """Of the RolloutPools and their Deployments. None: the pod's own, from its service account."""
    kubeconfig: Path | None = None
    """None: the cluster that this pod runs in."""
    poll_seconds: float = Field(default=5.0, gt=0)
    """Between two decisions."""
    rollout_port: int = Field(default=50051, ge=1, le=65535)
    """gRPC port of every rollout pod."""
    rollout_server_name: str | None = None
    """With TLS, a name that the rollout pods' certificates have; the pods are called by address. None: the address."""
    learner_target: str | None = None
    """gRPC target of the learner, which tells its version and staleness. None: they stay unknown."""
    max_samples_ahead: int = Field(default=1024, ge=1)
    """The rollout workers' own setting: with so many samples ahead of the learner they stop reading."""

    lease_name: str = "onlinerlhf-scaler"
    lease_seconds: float = Field(default=15.0, gt=0)
    """A leader that has not renewed its lease for this long has lost it."""
    renew_seconds: float = Field(default=10.0, gt=0)
    """A leader that could not renew for this long gives up and ends."""
    retry_seconds: float = Field(default=2.0, gt=0)
    """Between tries to get or renew the lease."""

    @model_validator(mode="after")
    def _a_leader_gives_up_before_its_lease_ends(self) -> "ScalerConfig":
        if not self.retry_seconds < self.renew_seconds < self.lease_seconds:
            raise ValueError(
                f"expected retry_seconds ({self.retry_seconds:g}) < renew_seconds ({self.renew_seconds:g}) < "
                f"lease_seconds ({self.lease_seconds:g})"
            )
        return self
