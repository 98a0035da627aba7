"""Alerts and dashboards read what the code exports, and every alert says what to do."""

import json
import re
from typing import Any

import pytest

from deploy.helm import ROOT, SETS, changed, render, rendered
from deploy.objects import Object, Rendering, matches
from deploy.promql import TARGET_LABELS, exported, reads
from deploy.rooms import ROOMS
from onlinerlhf.learner.config import LearnerConfig

ON = {"observability": {part: {"enabled": True} for part in ("podMonitor", "rules", "dashboards")}}
ALERTS_PAGE = ROOT / "docs" / "alerts.md"


def with_all(name: str) -> Rendering:
    return render(changed(name, ON))


def alerts(rendering: Rendering) -> dict[str, Object]:
    [rules] = rendering.of("PrometheusRule")
    every = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    found = {rule["alert"]: rule for rule in every}
    assert len(found) == len(every)
    return found


def dashboards(rendering: Rendering) -> list[dict[str, Any]]:
    return [
        json.loads(text)
        for each in rendering.of("ConfigMap")
        for file, text in each["data"].items()
        if file.endswith(".json")
    ]


def expressions(rendering: Rendering) -> list[str]:
    """Of alerts and dashboards."""
    found = [rule["expr"] for rule in alerts(rendering).values()]
    for dashboard in dashboards(rendering):
        found += [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return found


@pytest.mark.parametrize("name", SETS)
def test_expressions_read_metrics_and_labels_that_the_code_exports(name: str) -> None:
    series = exported()
    for expression in expressions(with_all(name)):
        found = reads(expression)
        assert found.metrics, expression
        assert found.metrics <= set(series), expression
        own = frozenset().union(*(series[metric] for metric in found.metrics))
        assert found.labels <= own | TARGET_LABELS, expression


def test_expressions_close_what_they_open() -> None:
    for expression in expressions(with_all("gpu-prod")):
        bare = re.sub(r'"[^"]*"', "", expression)
        for opening, closing in ("()", "{}", "[]"):
            assert bare.count(opening) == bare.count(closing), expression
        assert "%" not in bare and not re.search(r"[\s(](?:by|on) (?!\()", bare), expression


def test_expressions_see_their_own_release_alone() -> None:
    for rule in alerts(with_all("minimal")).values():
        selectors = re.findall(r"onlinerlhf_\w+(\{[^{}]*\})?", rule["expr"])
        assert selectors and all('namespace="rlhf",release="onlinerlhf"' in each for each in selectors), rule["expr"]
    for dashboard in dashboards(with_all("minimal")):
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                selectors = re.findall(r"onlinerlhf_\w+(\{[^{}]*\})?", target["expr"])
                assert all('namespace="$namespace",release="$release"' in each for each in selectors), target["expr"]


def test_there_is_an_alert_for_everything_that_stops_the_pipeline() -> None:
    assert set(alerts(with_all("minimal"))) == {
        "OnlinerlhfLedgerImbalance",
        "OnlinerlhfBacklogOld",
        "OnlinerlhfPendingOld",
        "OnlinerlhfDeadLetters",
        "OnlinerlhfLearnerStalled",
        "OnlinerlhfStaleness",
        "OnlinerlhfCheckpointFailing",
        "OnlinerlhfRedisAway",
        "OnlinerlhfComponentDown",
        "OnlinerlhfMetricsMissing",
        "OnlinerlhfUserErrors",
        "OnlinerlhfScalerLeaderless",
        "OnlinerlhfScalerStalled",
        "OnlinerlhfScalerDegraded",
    }


def test_where_keda_scales_nobody_misses_the_scaler() -> None:
    assert not [alert for alert in alerts(with_all("keda")) if "Scaler" in alert]


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    headings = re.findall(r"^## (\w+)$", ALERTS_PAGE.read_text(), re.MULTILINE)
    found = alerts(with_all("minimal"))
    assert sorted(headings) == sorted(found)
    for alert, rule in found.items():
        assert rule["annotations"]["runbook_url"].endswith(f"#{alert.lower()}")
        assert rule["labels"]["severity"] in ("critical", "warning")
        section = ALERTS_PAGE.read_text().partition(f"## {alert}\n")[2].partition("\n## ")[0]
        assert f"**{rule['labels']['severity']}.**" in section
        assert "*Do:*" in section


def test_annotations_use_labels_that_their_expression_leaves() -> None:
    for rule in alerts(with_all("minimal")).values():
        used = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        kept = reads(rule["expr"]).labels
        assert used <= kept, rule["alert"]


def test_the_learner_counts_as_stalled_from_a_batch_on() -> None:
    def bound(rendering: Rendering) -> int:
        [found] = re.findall(r">= (\d+)", alerts(rendering)["OnlinerlhfLearnerStalled"]["expr"])
        return int(found)

    assert bound(render(ON)) == LearnerConfig.model_fields["batch_size"].default
    assert bound(render({**ON, "learner": {"settings": {"batch_size": 96}}})) == 96


@pytest.mark.parametrize("name", SETS)
def test_monitoring_scrapes_every_room_by_a_port_that_its_pods_name(name: str) -> None:
    rendering = with_all(name)
    [monitor] = rendering.of("PodMonitor")
    found = [pods for pods in rendering.pods() if matches(monitor["spec"]["selector"], pods.labels)]
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    scraped = {pods.component for pods in found if endpoint["port"] in pods.ports}
    assert scraped == {pods.component for pods in rendering.pods(*ROOMS)}
    added = {rule["targetLabel"] for rule in endpoint["relabelings"]} | {"namespace", "pod", "job"}
    assert added == TARGET_LABELS


def test_nothing_of_it_is_there_unless_asked_for() -> None:
    rendering = rendered("minimal")
    assert not rendering.of("PodMonitor") and not rendering.of("PrometheusRule")
    assert not dashboards(rendering)


def test_the_dashboard_is_whole() -> None:
    [overview] = dashboards(with_all("minimal"))
    identifiers = [panel["id"] for panel in overview["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    variables = {variable["name"] for variable in overview["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(overview["panels"])))
    assert used == variables == {"datasource", "namespace", "release"}
    for panel in overview["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["targets"], panel["title"]
