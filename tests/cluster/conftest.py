"""A real cluster, named by the environment; without one everything here is skipped, and says why.

ONLINERLHF_TEST_KUBECONFIG         kubeconfig of a cluster on which namespaces and CRDs may be made
ONLINERLHF_TEST_IMAGE_REPOSITORY   where the five images were pushed, as registry.example/rlhf; if they were loaded into
                                   nodes instead (kind load, ctr images import), what stands before their names there
                                   (crictl images): docker.io/library, or localhost for podman's
ONLINERLHF_TEST_IMAGE_TAG          their tag
ONLINERLHF_TEST_SHARED_STORAGE     optional: a storage class whose volumes many nodes may mount at once
ONLINERLHF_TEST_KEEP               any value: leave the namespace behind, to look at it
"""

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from cluster.objects import client_pod, client_policy, key_secret, quick_manifest, run_id_of
from cluster.platform import PYTHON, Platform, eventually, is_ready
from onlinerlhf.scaler.commands.manifests import find_manifests

KUBECONFIG = "ONLINERLHF_TEST_KUBECONFIG"
STORAGE_CLASS = "ONLINERLHF_TEST_SHARED_STORAGE"
REPOSITORY, TAG = "ONLINERLHF_TEST_IMAGE_REPOSITORY", "ONLINERLHF_TEST_IMAGE_TAG"
INSTALL_SECONDS = 1_800
CRD_NAME = "rolloutpools.onlinerlhf.dev"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Installing takes minutes, and a test may be the first to ask. Warnings of libraries are no failures here."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * INSTALL_SECONDS))
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session")
def kubeconfig() -> Path:
    """Of the cluster under test."""
    if not os.environ.get(KUBECONFIG):
        pytest.skip(f"{KUBECONFIG} names no cluster")
    if not os.environ.get(REPOSITORY) or not os.environ.get(TAG):
        pytest.skip(f"{REPOSITORY} and {TAG} name no images")
    return Path(os.environ[KUBECONFIG]).expanduser().resolve()


@pytest.fixture(scope="session")
def bare(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A namespace name of our own. What was made in it goes at the end, whatever happened."""
    api = config.new_client_from_config(config_file=str(kubeconfig))
    crds, minimal = find_manifests("minimal")
    manifest = tmp_path_factory.mktemp("manifest") / "minimal.yaml"
    storage_class = os.environ.get(STORAGE_CLASS, "")
    text = quick_manifest(minimal.read_text(encoding="utf-8"), shared_storage_class=storage_class)
    manifest.write_text(text, encoding="utf-8")
    namespace = f"onlinerlhf-test-{secrets.token_hex(3)}"
    platform = Platform(
        api=api, kubeconfig=kubeconfig, namespace=namespace, manifests=(crds, manifest), run_id=run_id_of(text)
    )
    had_crd = _has_crd(api)
    yield platform
    if not os.environ.get("ONLINERLHF_TEST_KEEP"):
        _clean(platform, keep_crd=had_crd)
    api.close()


@pytest.fixture(scope="session")
def platform(bare: Platform) -> Platform:
    """The minimal set, installed and ready, with a client's pod beside it."""
    images = ["--registry", os.environ[REPOSITORY], "--tag", os.environ[TAG]]
    ran = bare.k8s("install", *bare.manifest_options, *images, "--timeout", str(INSTALL_SECONDS))
    assert ran.code == 0, ran.output
    _add_client(bare)
    return bare


def _add_client(platform: Platform) -> None:
    """A user of the platform in the cluster: a pod with a playground key, whose traffic its own policy allows."""
    gateway = next(each for each in platform.pods("gateway") if is_ready(each))
    create = ["-m", "onlinerlhf", "keys", "create", "--run", platform.run_id, "--name", "test", "--class", "playground"]
    limits = ["--requests-per-minute", "100000", "--tokens-per-minute", "100000000"]
    key = platform.run_in(gateway.metadata.name, [PYTHON, *create, *limits]).strip()
    platform.core.create_namespaced_secret(platform.namespace, key_secret(key))
    client.NetworkingV1Api(platform.api).create_namespaced_network_policy(platform.namespace, client_policy())
    pulls = [{"name": each.name} for each in gateway.spec.image_pull_secrets or ()]
    pod = client_pod(gateway.spec.containers[0].image, pull_secrets=pulls)
    platform.core.create_namespaced_pod(platform.namespace, pod)
    platform.client_pod = pod["metadata"]["name"]

    def ready() -> bool:
        return is_ready(platform.core.read_namespaced_pod(platform.client_pod, platform.namespace))

    eventually(ready, what="the client's pod to be ready", seconds=300)


def _has_crd(api: client.ApiClient) -> bool:
    try:
        client.ApiextensionsV1Api(api).read_custom_resource_definition(CRD_NAME)
    except ApiException as error:
        if error.status == 404:
            return False
        raise
    return True


def _clean(platform: Platform, *, keep_crd: bool) -> None:
    """The namespace, and the CRD if it was not there before."""
    try:
        platform.core.delete_namespace(platform.namespace)
    except ApiException as error:
        if error.status != 404:
            raise

    def gone() -> bool:
        try:
            platform.core.read_namespace(platform.namespace)
        except ApiException as error:
            return bool(error.status == 404)
        return False

    time.sleep(1)
    eventually(gone, what=f"namespace {platform.namespace} to be gone", seconds=600)
    if not keep_crd and _has_crd(platform.api):
        client.ApiextensionsV1Api(platform.api).delete_custom_resource_definition(CRD_NAME)
