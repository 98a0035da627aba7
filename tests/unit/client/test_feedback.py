from onlinerlhf.v1 import gateway_pb2
from onlinerlhf_client import FeedbackReceipt
from onlinerlhf_client.feedback import Feedback


class Gateway:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[gateway_pb2.SubmitFeedbackRequest] = []
        self.timeouts: list[float | None] = []

    def __call__(self, request: gateway_pb2.SubmitFeedbackRequest, timeout: float | None) -> FeedbackReceipt:
        self.sent.append(request)
        self.timeouts.append(timeout)
        return FeedbackReceipt(feedback_id="f", replayed=False)


def test_each_judgement_goes_out_as_its_own_kind() -> None:
    gateway = Gateway()
    feedback = Feedback(gateway)
    feedback.thumb("s", up=False)
    feedback.score("s", 0.75)
    feedback.correct("s", "zoë")
    feedback.rank(["best", "worst"])
    thumb, score, correction, ranking = gateway.sent
    assert (thumb.thumb.sample_id, thumb.thumb.up, thumb.WhichOneof("judgement")) == ("s", False, "thumb")
    assert (score.score.sample_id, score.score.value) == ("s", 0.75)
    assert (correction.correction.sample_id, correction.correction.text) == ("s", b"zo\xc3\xab")
    assert list(ranking.ranking.sample_ids) == ["best", "worst"]


def test_every_judgement_has_its_own_idempotency_key_unless_one_is_given() -> None:
    gateway = Gateway()
    feedback = Feedback(gateway)
    feedback.thumb("s", up=True)
    feedback.thumb("s", up=True)
    feedback.thumb("s", up=True, idempotency_key="mine", timeout=3.0)
    first, second, third = (each.idempotency_key for each in gateway.sent)
    assert len({first, second, third}) == 3
    assert third == "mine"
    assert gateway.timeouts == [None, None, 3.0]
