import pytest

from beamdesk.guest.client import GuestApi
from beamdesk.guest.errors import ApiError, ApiUnavailable, ConfigError, Refused
from beamdesk.protocol.guest import Activity, Report, Step, StepName, StepState
from integration.guest.container import FakeApi

REPORT = Report((Step(StepName.ENROL, StepState.DONE),), Activity(1.0, 0.5))


@pytest.fixture
def served(tmp_path):
    api = FakeApi()
    with api.serving(tmp_path / "guest.sock"):
        client = GuestApi(f"http+unix://{tmp_path}/guest.sock", timeout=2)
        yield api, client
        client.close()


def test_enrolment_brings_the_identity(served):
    api, client = served
    assert client.enrol(api.nonce) == api.identity()


def test_a_second_enrolment_is_refused(served):
    api, client = served
    client.enrol(api.nonce)
    with pytest.raises(Refused, match="nonce"):
        client.enrol(api.nonce)


def test_reports_need_the_token_and_bring_messages(served):
    api, client = served
    with pytest.raises(Refused, match="identity"):
        client.report(REPORT)
    client.use_token(api.token)
    api.messages = ["Your desktop ends in 10 minutes."]
    assert client.report(REPORT).messages == ("Your desktop ends in 10 minutes.",)
    assert api.reports[0][1] == REPORT


def test_a_picture_is_sent_as_it_is(served):
    api, client = served
    client.use_token(api.token)
    client.thumbnail(b"\x89PNG...", "image/png")
    assert api.thumbnails[0][1] == b"\x89PNG..."


def test_an_api_that_is_down_is_worth_another_try(tmp_path):
    with pytest.raises(ApiUnavailable):
        GuestApi(f"http+unix://{tmp_path}/none.sock").enrol("x")


def test_an_api_that_was_restarted_is_reached_again(tmp_path):
    path = tmp_path / "guest.sock"
    api = FakeApi()
    client = GuestApi(f"http+unix://{path}", timeout=2)
    client.use_token(api.token)
    with api.serving(path):
        client.report(REPORT)
    with pytest.raises(ApiUnavailable):
        client.report(REPORT)
    with api.serving(path):
        client.report(REPORT)
    client.close()


def test_a_malformed_answer_is_an_error_without_its_content(served):
    api, client = served
    api.answer = lambda *_: (200, b'{"messages": "secret"}')
    with pytest.raises(ApiError, match="malformed") as caught:
        client.report(REPORT)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"), [(500, ApiUnavailable), (503, ApiUnavailable), (429, ApiUnavailable), (404, ApiError), (401, Refused)]
)
def test_each_status_has_its_meaning(served, status, kind):
    api, client = served
    api.answer = lambda *_: (status, b"{}")
    with pytest.raises(ApiError) as caught:
        client.report(REPORT)
    assert type(caught.value) is kind


@pytest.mark.parametrize("url", ["http://host/", "ftp://x", "", "unix:///x"])
def test_plain_http_is_refused(url):
    with pytest.raises(ConfigError):
        GuestApi(url)
