"""The scaler's role allows what it calls, and nothing else of weight."""

import pytest

from cluster.objects import review
from cluster.platform import Platform
from onlinerlhf.scaler.verbs import RBAC


def allowed(platform: Platform, group: str, resource: str, verb: str) -> bool:
    account = platform.pods("scaler")[0].spec.service_account_name
    user = f"system:serviceaccount:{platform.namespace}:{account}"
    body = review(platform.namespace, user, group, resource, verb)
    found = platform.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
    return bool(found["status"]["allowed"])


@pytest.mark.parametrize(
    ("group", "resource", "verb"), [(group, resource, verb) for group, resource, verbs in RBAC for verb in verbs]
)
def test_the_scaler_may_do_what_it_does(platform: Platform, group: str, resource: str, verb: str) -> None:
    assert allowed(platform, group, resource, verb)


@pytest.mark.parametrize(
    ("group", "resource", "verb"),
    [
        ("", "secrets", "get"),
        ("", "pods", "delete"),
        ("", "pods/exec", "create"),
        ("apps", "deployments", "patch"),
        ("apps", "deployments", "delete"),
        ("onlinerlhf.dev", "rolloutpools", "patch"),
        ("rbac.authorization.k8s.io", "roles", "create"),
    ],
)
def test_the_scaler_may_do_nothing_else(platform: Platform, group: str, resource: str, verb: str) -> None:
    assert not allowed(platform, group, resource, verb)
