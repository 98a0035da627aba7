"""Whether workloads are up, and what their pods wait for."""

from typing import Any

from onlinerlhf.scaler.commands.readiness import belongs, newest_warning, waits_for, workload_of


def deployment(**status: Any) -> dict[str, Any]:
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "x"}}}
    return {"kind": "Deployment", "metadata": {"name": "gateway", "generation": 3}, "spec": spec, "status": status}


def pod(*, conditions: Any = (), phase: str = "Pending", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": {"phase": phase, "conditions": list(conditions), **status}}


def container(state: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"name": "rollout", "state": state, **more}]


def test_a_deployment_is_done_when_all_replicas_are_of_the_newest_template_and_available() -> None:
    whole = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}
    assert workload_of(deployment(observedGeneration=3, **whole)).is_done
    assert not workload_of(deployment(observedGeneration=2, **whole)).is_done
    assert not workload_of(deployment(observedGeneration=3, **{**whole, "replicas": 3})).is_done
    assert not workload_of(deployment(observedGeneration=3, **{**whole, "updatedReplicas": 1})).is_done


def test_a_deployment_without_replicas_wants_one_and_with_zero_none() -> None:
    absent = deployment()
    del absent["spec"]["replicas"]
    assert workload_of(absent).wanted == 1
    none = deployment(observedGeneration=3)
    none["spec"]["replicas"] = 0
    assert workload_of(none).is_done and workload_of(none).state == "0/0"


def test_a_deployment_that_may_not_make_pods_says_why() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "message": "violates PodSecurity restricted"}
    assert workload_of(deployment(conditions=[refused])).problem == "violates PodSecurity restricted"


def test_a_stateful_set_is_done_at_one_revision_with_all_pods_ready() -> None:
    thing = {
        "kind": "StatefulSet",
        "metadata": {"name": "learner", "generation": 1},
        "spec": {"replicas": 1},
        "status": {"observedGeneration": 1, "readyReplicas": 1, "currentRevision": "a", "updateRevision": "b"},
    }
    assert not workload_of(thing).is_done
    thing["status"] |= {"currentRevision": "b"}  # type: ignore[operator]
    assert workload_of(thing).is_done


def test_a_job_is_complete_failed_or_running() -> None:
    job: dict[str, Any] = {"kind": "Job", "metadata": {"name": "models"}, "spec": {}, "status": {}}
    assert workload_of(job).state == "running"
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "message": "backoff limit"}]}
    assert (workload_of(job).state, workload_of(job).problem) == ("failed", "backoff limit")
    job["status"] = {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}
    assert workload_of(job).state == "complete"


def test_a_pod_that_fits_no_node_waits_for_one() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: insufficient nvidia.com/gpu"}
    assert waits_for(pod(conditions=[condition]), []) == "a node: 0/3 nodes: insufficient nvidia.com/gpu"


def test_an_image_that_cannot_be_pulled_is_named_with_the_kubelets_words() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    assert waits_for(pod(containerStatuses=container(waiting)), []) == "container rollout: ImagePullBackOff: not found"


def test_a_crash_tells_its_exit_code() -> None:
    last = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    status = container({"waiting": {"reason": "CrashLoopBackOff"}}, lastState=last, restartCount=4)
    said = waits_for(pod(containerStatuses=status), [])
    assert said == "container rollout: CrashLoopBackOff, ended with 137 (OOMKilled)"
    between = container({"running": {}}, lastState={"terminated": {"exitCode": 1, "reason": "Error"}}, restartCount=2)
    assert waits_for(pod(containerStatuses=between), []) == "container rollout: ended with 1 (Error); restarted 2 times"


def test_a_failing_init_container_comes_before_the_containers_that_wait_for_it() -> None:
    status: dict[str, Any] = {
        "initContainerStatuses": [{"name": "wait", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}],
        "containerStatuses": container({"waiting": {"reason": "PodInitializing"}}),
    }
    assert waits_for(pod(**status), []).startswith("container wait: ended with 2 (Error)")


def test_the_newest_event_speaks_where_the_states_do_not() -> None:
    def event(at: str, message: str) -> dict[str, Any]:
        about = {"regarding": {"name": "p"}, "type": "Warning", "reason": "FailedMount"}
        return {**about, "deprecatedLastTimestamp": at, "note": message}

    events = [event("2026-01-01T00:00:02Z", "no secret y"), event("2026-01-01T00:00:01Z", "no secret x")]
    starting = pod(containerStatuses=container({"waiting": {"reason": "ContainerCreating"}}))
    assert waits_for(starting, events) == "FailedMount: no secret y"
    assert newest_warning(events, "other") == ""


def test_a_running_pod_waits_for_its_probe_and_a_ready_one_for_nothing() -> None:
    running = pod(phase="Running", containerStatuses=container({"running": {}}))
    assert waits_for(running, []) == "readiness: rollout runs and its probe does not succeed yet"
    assert waits_for(pod(conditions=[{"type": "Ready", "status": "True"}]), []) == ""
    assert waits_for(pod(phase="Succeeded"), []) == ""


def test_pods_belong_to_the_workload_that_selects_their_labels() -> None:
    ours = {"metadata": {"labels": {"app": "x", "more": "y"}}}
    assert belongs(ours, deployment())
    assert not belongs({"metadata": {}}, deployment())
    assert not belongs(ours, {"spec": {}})
