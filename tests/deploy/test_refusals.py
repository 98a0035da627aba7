"""Values that cannot work are refused before anything is made, in words that name them."""

from typing import Any

import helm_python
import pytest

from deploy.helm import changed, refusal, render, values_of

POOL = ("rollout", "pools", "default")


def at(*path: str, **last: Any) -> dict[str, Any]:
    """Nested tables around the last."""
    made: dict[str, Any] = last
    for key in reversed(path):
        made = {key: made}
    return made


CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "KEDA beside the scaler": (at(keda={"enabled": True}), ("keda.enabled", "scaler.enabled", "exclude each other")),
    "nobody to scale a pool": (at("scaler", enabled=False), ("neither scaler.enabled nor keda.enabled",)),
    "negative replicas": (at("gateway", replicas=-1), ("gateway", "replicas", "-1")),
    "fractional replicas": (at("scaler", replicas=1.5), ("scaler", "replicas", "integer")),
    "negative pool minimum": (at(*POOL, "autoscaling", minReplicas=-1), ("minReplicas",)),
    "fractional pool maximum": (at(*POOL, "autoscaling", maxReplicas=2.5), ("maxReplicas", "integer")),
    "pool maximum below minimum": (
        at(*POOL, "autoscaling", minReplicas=5, maxReplicas=2),
        ("rollout.pools.default", "maxReplicas (2) is below minReplicas (5)"),
    ),
    "gateway maximum below minimum": (
        at("gateway", "autoscaling", enabled=True, minReplicas=5, maxReplicas=2),
        ("gateway.autoscaling", "maxReplicas (2) is below minReplicas (5)"),
    ),
    "replicas of a scaled pool": (at(*POOL, replicas=3), ("rollout.pools.default.replicas", "autoscaler")),
    "a fixed pool without replicas": (
        at(*POOL, "autoscaling", enabled=False),
        ("rollout.pools.default.replicas is required",),
    ),
    "two learners": (at("learner", replicas=2), ("learner", "replicas")),
    "unknown key": (at(gatway={"replicas": 2}), ("gatway",)),
    "unknown key deep inside": (at(*POOL, "autoscaling", minReplica=1), ("minReplica",)),
    "text for a number": (at("rollout", drainSeconds="sixty"), ("drainSeconds",)),
    "negative drain": (at("rollout", drainSeconds=-1), ("drainSeconds",)),
    "external Redis without a Secret": (
        at(redis={"enabled": False, "external": {"enabled": True, "egress": [{"cidr": "10.0.0.0/8", "port": 6379}]}}),
        ("redis.auth.existingSecret",),
    ),
    "external Redis behind no policy": (
        at(redis={"enabled": False, "external": {"enabled": True, "egress": []}, "auth": {"existingSecret": "redis"}}),
        ("redis.external.egress",),
    ),
    "two Redis": (at("redis", "external", enabled=True), ("redis.enabled", "redis.external.enabled")),
    "no Redis": (at("redis", enabled=False), ("redis.external.enabled",)),
    "TLS without its Secret": (at("tls", mode="secret"), ("tls.secret.name",)),
    "a Secret without TLS": (at("tls", "secret", name="mine"), ("tls.mode",)),
    "unknown kind of TLS": (at("tls", mode="on"), ("tls", "mode")),
    "models from a claim without a name": (at("models", source="claim"), ("models.claim.existingClaim",)),
    "a setting that the chart owns": (at("gateway", "settings", listen="0.0.0.0:1"), ("gateway.settings.listen",)),
    "a worker id for all workers": (at("rollout", "settings", worker_id="one"), ("rollout.settings.worker_id",)),
    "a pool's own bound of staleness": (at(*POOL, "settings", max_samples_ahead=3), ("max_samples_ahead",)),
    "a password in the settings": (at("gateway", "settings", hash_key="0123456789abcdef"), ("hash_key",)),
    "another run's id": (at("run", id="with space"), ("run", "id")),
    "a pool name that is no DNS label": (at("rollout", "pools", A_100={"autoscaling": {"maxReplicas": 2}}), ("A_100",)),
    "a container without limits": (
        at("reward", resources={"requests": {"cpu": "1", "memory": "1Gi"}, "limits": None}),
        ("resources",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_values_that_cannot_work_are_refused_by_name(case: str) -> None:
    values, words = CASES[case]
    said = refusal(changed("minimal", values))
    for word in words:
        assert word in said, said


def test_a_release_can_come_without_any_values_of_its_own() -> None:
    with pytest.raises(AssertionError, match="took these values"):
        refusal({})


@pytest.mark.parametrize("release", ["2026", "my.release"])
def test_a_release_name_that_no_service_can_begin_with_is_refused(release: str) -> None:
    with pytest.raises(helm_python.HelmError, match="begin with a letter and have no dots"):
        render(values_of("minimal"), release=release)
