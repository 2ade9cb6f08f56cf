"""How much is asked of a server at once and in all, and what real ones were seen to send."""

import asyncio
import threading
import time
import warnings

import pytest
from PIL import Image
from rewards.fake_server import Fake, Reply, ask, completion, counted, echo, questions, said, serving, text_of

from vergence.rewards import wire
from vergence.rewards.budget import Budget, BudgetSpent
from vergence.rewards.completion import estimate
from vergence.rewards.flow import Flow
from vergence.rewards.reasoner import Question, ReasonerDown
from vergence.rewards.server import Server, Turn, user_message
from vergence.types import UserError


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in (*wire.KEYS, "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


# ------------------------------------------------------------------------------------------------- how many at once


def crowded(bears, status, seconds=0.01, **headers):
    """A server that turns away whatever comes while it has so many to answer; and how it went."""
    lock, went = threading.Lock(), {"now": 0, "away": 0, "most": 0}

    def behave(wanted, tried):
        with lock:
            went["now"] += 1
            away = went["now"] > bears
            went["away"] += away
            went["most"] = max(went["most"], went["now"])
        try:
            time.sleep(0 if away else seconds)
            return Reply({"error": "busy"}, status, **headers) if away else echo(wanted, tried)
        finally:
            with lock:
                went["now"] -= 1

    return behave, went


@pytest.mark.parametrize("status", [429, 503])
def test_a_crowded_server_is_asked_less_at_once_and_answers_all(status):
    behave, went = crowded(3, status)
    with serving(behave) as fake:
        budget = Budget()
        server = Server(fake.url, "m", concurrency=32, patience=0.02, budget=budget)
        assert ask(server, questions(60)) == [f"q{at}!" for at in range(60)]
        first = went["away"]
        assert ask(server, [Question(f"r{at}", at) for at in range(60)])[-1] == "r59!"
    # 29 of the first 32 are turned away whatever one does; what is learnt then is still known at the next call
    assert first <= 70
    assert went["away"] - first <= 35
    assert budget.used.requests == 120 + went["away"]
    assert budget.used.retries == went["away"]
    assert (budget.used.answers, budget.used.in_flight) == (120, 32)


def test_the_limit_halves_once_for_all_that_met_the_same_crowd_and_comes_back():
    flow = Flow(16, Budget())
    flow._last = 16  # 16 are under way, with tickets 1 to 16
    for ticket in range(1, 17):
        flow.crowded(ticket)
    assert flow.limit == 8
    flow.crowded(17)  # begun after that
    assert flow.limit == 4
    for _ in range(4 + 5 + 6 + 7):  # one more after as many answers as there are places
        flow.answered()
    assert 7.5 < flow.limit < 8
    for _ in range(1000):
        flow.answered()
    assert flow.limit == 16
    for ticket in range(100, 200):
        flow._last = ticket
        flow.crowded(ticket)
    assert flow.limit == 1


def test_a_server_that_is_too_slow_is_asked_less_at_once():
    with serving(lambda wanted, tried: said("", hang=9.0) if tried == 1 else echo(wanted, tried)) as fake:
        server = Server(fake.url, "m", concurrency=8, patience=0.0, timeout=0.3)
        assert ask(server, questions(8)) == [f"q{at}!" for at in range(8)]
        assert server._bears < 8


def test_retry_after_holds_back_all():
    came = []

    def behave(wanted, tried):
        came.append(time.monotonic())
        if len(came) == 1:
            return Reply({}, 429, **{"Retry-After": "1"})
        if len(came) == 2:
            time.sleep(0.4)  # so that the first one's answer is read before this one's, however busy the machine is
        return echo(wanted, tried)

    with serving(behave) as fake:
        assert len(ask(Server(fake.url, "m", concurrency=2, patience=0.0), questions(9))) == 9
    # the one that was under way beside it may come at once
    assert sum(at - came[0] < 0.95 for at in came[1:]) <= 1


# ------------------------------------------------------------------------------------------------- how much in all


def costs(prompt, written):
    return lambda wanted, tried: counted(f"{text_of(wanted)}!", prompt, written)


@pytest.mark.parametrize("concurrency", [1, 7])
@pytest.mark.parametrize("tokens", [1, 23, 100, 119])
def test_no_more_tokens_are_used_than_there_are_and_no_fewer_than_can_be(tokens, concurrency):
    most = estimate([user_message("q10")]) + 8  # what one may cost: 17
    with serving(costs(prompt=6, written=4)) as fake:
        server = Server(fake.url, "m", concurrency=concurrency, budget=Budget(tokens=tokens))
        with pytest.raises(BudgetSpent, match=rf"is spent \(\d+ of {tokens} tokens\).*of 60 answers are done"):
            ask(server, questions(60))
        used = server.budget.used
    assert used.tokens == 10 * used.answers <= tokens
    assert used.tokens + most > tokens  # another could have been too much, and only therefore none was begun


def test_what_was_finished_is_kept_and_what_is_kept_costs_nothing(tmp_path):
    with serving(costs(prompt=6, written=4)) as fake:
        for spent in (True, True, False):
            server = Server(fake.url, "m", cache=tmp_path, concurrency=4, budget=Budget(tokens=100, remedy="Pay"))
            if spent:
                with pytest.raises(BudgetSpent, match=rf"kept in {tmp_path}. Pay"):
                    ask(server, questions(24))
            else:
                assert ask(server, questions(24)) == [f"q{at}!" for at in range(24)]
        assert set(fake.tries.values()) == {1}
        assert len(fake.seen) == 24
        none_left = Server(fake.url, "m", cache=tmp_path, budget=Budget(tokens=1))
        assert ask(none_left, questions(24))[-1] == "q23!"
        assert none_left.budget.used.tokens == 0


def test_seconds_end_what_is_begun_and_not_what_is_under_way(tmp_path):
    with serving(lambda wanted, tried: time.sleep(0.3) or echo(wanted, tried)) as fake:
        server = Server(fake.url, "m", concurrency=2, cache=tmp_path, budget=Budget(seconds=0.5))
        with pytest.raises(BudgetSpent, match=r"of 0.5 seconds.*of 9 answers are done"):
            ask(server, questions(9))
        begun = len(fake.seen)
        assert 2 <= begun <= 4
        assert len(list(tmp_path.iterdir())) == begun
        with pytest.raises(BudgetSpent, match=f"{begun} of 9 answers are done"):
            ask(server, questions(9))
        assert len(fake.seen) == begun


@pytest.mark.parametrize("header", [{}, {"Retry-After": "200"}], ids=str)
def test_nobody_waits_beyond_the_seconds(header):
    """Neither for the next try, nor until a server that asked for it may be asked again."""
    with serving(lambda wanted, tried: Reply({}, 503, **header)) as fake:
        server = Server(fake.url, "m", concurrency=4, patience=60.0, budget=Budget(seconds=0.3))
        server._bears = 1.0  # as after a crowd: all but one wait for a place
        begun = time.monotonic()
        with pytest.raises(BudgetSpent):
            ask(server, questions(9))
        assert time.monotonic() - begun < 5
        assert len(fake.seen) <= 4


def test_seconds_that_a_server_was_not_there_for_are_told_as_such():
    """Whatever it was asked for: its models, or an answer."""
    with serving(lambda wanted, tried: Reply({}, 503)) as fake:
        for model in ("", "m"):
            server = Server(fake.url, model, patience=60.0, budget=Budget(seconds=0.3, remedy="Wait longer"))
            with pytest.raises(BudgetSpent, match=r"is spent \(.*of 0.3 seconds\).*, after \d tr.*Wait longer"):
                ask(server, questions(1))


def test_what_is_under_way_is_kept_when_another_waits_in_vain(tmp_path):
    def behave(wanted, tried):
        if text_of(wanted) == "q0":
            return Reply({}, 503)
        return time.sleep(0.8) or echo(wanted, tried)

    with serving(behave) as fake:
        server = Server(fake.url, "m", concurrency=2, patience=60.0, cache=tmp_path, budget=Budget(seconds=0.4))
        with pytest.raises(BudgetSpent, match="1 of 2 answers are done"):
            ask(server, questions(2))
    assert len(list(tmp_path.iterdir())) == 1


def test_servers_can_share_a_budget():
    budget = Budget(tokens=60)
    with serving(costs(prompt=6, written=4)) as one, serving(costs(prompt=6, written=4)) as other:
        ask(Server(one.url, "m", budget=budget), questions(2))
        with pytest.raises(BudgetSpent):
            ask(Server(other.url, "m", budget=budget, concurrency=1), questions(9))
    assert budget.used.tokens == 50
    assert str(budget) == "50 of 60 tokens"


def test_what_is_used_is_told_since_the_last_time():
    with serving(costs(prompt=6, written=4)) as fake:
        budget = Budget()
        server = Server(fake.url, "m", concurrency=2, budget=budget)
        ask(server, questions(5))
        first = budget.taken()
        assert first.pop("server/seconds") > 0
        assert {name: number for name, number in first.items() if number} == {
            "server/requests": 5,
            "server/answers": 5,
            "server/prompt_tokens": 30,
            "server/completion_tokens": 20,
            "server/in_flight": 2,
        }
        assert budget.taken() == {}
        server([Question("more", 0)], temperature=1.0, max_tokens=8)
        again = budget.taken()
        assert (again["server/answers"], again["server/in_flight"], budget.used.answers) == (1, 1, 6)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "many",
        {},
        {"prompt_tokens": 6},
        {"prompt_tokens": -6, "completion_tokens": 4},
        {"prompt_tokens": True, "completion_tokens": 4},
        {"prompt_tokens": 1e300, "completion_tokens": 4},
        {"prompt_tokens": 10**30, "completion_tokens": 4},
    ],
    ids=str,
)
def test_where_tokens_are_not_counted_they_are_estimated(usage):
    with serving(lambda *_: completion({"content": "123456789"}, usage=usage)) as fake:
        server = Server(fake.url, "m")
        ask(server, questions(1))
    used = server.budget.used
    assert (used.prompt_tokens, used.completion_tokens, used.estimated) == (8 + 1, 3, 1)


@pytest.mark.parametrize("bounds", [(-1, 0.0), (0, -1.0), (0, float("inf")), (0, float("nan"))], ids=str)
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(UserError, match="a budget must be"):
        Budget(*bounds)


# ------------------------------------------------------------------------------------------------- gone and back


def test_a_server_that_is_killed_midway_and_started_again_costs_no_answer(tmp_path):
    """The first dies with requests under way; the second, at the same address, is asked for the rest alone."""
    begun, killed = threading.Barrier(5), threading.Event()

    def dies(wanted, tried):
        if int(text_of(wanted)[1:]) >= 8:
            begun.wait(10)
            killed.wait(10)
            return said("half", cut=True)
        return echo(wanted, tried)

    answers = []
    with serving(dies) as first:
        port = first.server_address[1]
        server = Server(first.url, "m", concurrency=4, patience=0.1, cache=tmp_path)
        asking = threading.Thread(target=lambda: answers.extend(ask(server, questions(20))))
        asking.start()
        begun.wait(10)
    killed.set()
    time.sleep(0.3)  # nobody is there: connections are refused
    with serving(echo, port) as second:
        asking.join(20)
    assert answers == [f"q{at}!" for at in range(20)]
    assert sorted(int(text_of(wanted)[1:]) for _, wanted, _ in second.seen) == list(range(8, 20))
    assert server.budget.used.retries >= 4


def test_requests_that_a_server_left_hanging_are_asked_of_the_next():
    """vLLM, told to end, waits for connections to close while its engine is gone: some are never answered."""
    begun, closed = threading.Barrier(5), threading.Event()

    def hangs(wanted, tried):
        begun.wait(10)
        closed.wait(10)
        return said("too late", hang=20.0) if text_of(wanted) != "q0" else said("half", cut=True)

    first = Fake(hangs)
    port = first.server_address[1]
    listening = threading.Thread(target=first.serve_forever, kwargs={"poll_interval": 0.01})
    listening.start()
    answers = []
    server = Server(first.url, "m", concurrency=4, patience=0.1, timeout=20.0)
    asking = threading.Thread(target=lambda: answers.extend(ask(server, questions(8))))
    asking.start()
    begun.wait(10)
    first.shutdown()
    first.socket.close()  # it takes no more, and keeps what it has
    closed.set()
    time.sleep(0.3)
    with serving(echo, port):
        asking.join(10)
        assert answers == [f"q{at}!" for at in range(8)]
    first.over.set()
    listening.join()


def test_a_try_is_given_up_once_however_long_it_takes_to_end():
    """Its connection is closed first, and meanwhile the next server answers others."""

    async def hangs(flow, ticket):
        async with flow.within(ticket, 60.0):
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.shield(asyncio.sleep(0.02))

    async def two_that_hang():
        flow = Flow(4, Budget())
        hanging = [asyncio.create_task(hangs(flow, ticket)) for ticket in (1, 2)]
        await asyncio.sleep(0)
        flow._last = 2
        flow.gone()
        for ticket in (3, 4, 5):
            flow.answered(ticket)
            await asyncio.sleep(0.005)
        return await asyncio.gather(*hanging, return_exceptions=True)

    assert [type(one) for one in asyncio.run(asyncio.wait_for(two_that_hang(), 5))] == [TimeoutError] * 2


# ------------------------------------------------------------------------------------------------- what real ones send


def test_a_thought_that_the_server_parts_from_the_answer_is_put_back_for_a_reasoner(tmp_path):
    """`transformers serve` does so by itself, under one name; vLLM with --reasoning-parser, under another."""
    theirs = {"content": "\\boxed{12}", "role": "assistant", "reasoning_content": "3+1=4, 4+8=12."}
    ours = {"role": "assistant", "content": "\\boxed{12}", "refusal": None, "reasoning": "3+1=4, 4+8=12."}
    for at, message in enumerate((theirs, ours)):
        with serving(lambda *_, message=message: completion(message)) as fake:
            server = Server(fake.url, "m", cache=tmp_path / str(at))
            for _ in range(2):  # the second time from the cache
                assert ask(server, questions(1)) == ["<think>3+1=4, 4+8=12.</think>\\boxed{12}"]
                turn = Turn((user_message("q0"),), 0)
                assert server.chat([turn], temperature=1.0, max_tokens=8) == ["\\boxed{12}"]
            assert len(fake.seen) == 1


def test_an_answer_that_was_cut_while_it_thought_is_no_answer():
    cut = {"content": "", "role": "assistant", "reasoning_content": "3+1=4, so it is \\boxed{4"}
    with serving(lambda *_: completion(cut, "length")) as fake, pytest.warns(UserWarning, match="2 of 2.*cut at 8"):
        assert ask(Server(fake.url, "m"), questions(2)) == ["<think>3+1=4, so it is \\boxed{4"] * 2


def test_few_cut_answers_are_no_warning():
    def behave(wanted, tried):
        return completion({"content": "x"}, "length" if text_of(wanted) == "q0" else "stop")

    with serving(behave) as fake, warnings.catch_warnings():
        warnings.simplefilter("error")
        server = Server(fake.url, "m")
        ask(server, questions(3))
    assert server.budget.used.cut == 1


def test_content_in_parts_is_joined():
    parts = [{"type": "text", "text": "\\boxed{"}, {"type": "image"}, {"type": "text", "text": "4}"}]
    with serving(lambda *_: completion({"content": parts})) as fake:
        assert ask(Server(fake.url, "m"), questions(1)) == ["\\boxed{4}"]


@pytest.mark.parametrize("finish", ["abort", "error"])
def test_an_answer_that_the_server_gave_up_is_asked_again(finish):
    def behave(wanted, tried):
        return completion({"content": "half"}, finish) if tried == 1 else echo(wanted, tried)

    with serving(behave) as fake:
        server = Server(fake.url, "m", patience=0.0)
        assert ask(server, questions(2)) == ["q0!", "q1!"]
        assert server.budget.used.answers == 2
    with serving(lambda *_: completion({"content": "half"}, finish)) as fake, pytest.raises(ReasonerDown, match=finish):
        ask(Server(fake.url, "m", patience=0.0, retries=2), questions(2))


def test_a_server_that_cannot_list_its_models_is_asked_once_and_told():
    """`transformers serve`, offline: its list is of a hub's cache."""
    with serving(lambda *_: Reply(b"Internal Server Error", 500)) as fake, pytest.raises(UserError) as caught:
        ask(Server(fake.url, patience=0.0), questions(1))
    assert not isinstance(caught.value, ReasonerDown)
    assert "name the model that is to answer" in str(caught.value)


def test_a_server_with_another_model_says_which():
    pinned = Reply({"detail": "Server is pinned to 'DIR'; requested 'm'."}, 400)
    unknown = Reply({"error": {"message": "The model `m` does not exist. Valid aliases: tiny.", "code": 404}}, 404)
    for reply, told in ((pinned, "pinned to 'DIR'"), (unknown, "Valid aliases: tiny")):
        with serving(lambda *_, reply=reply: reply) as fake, pytest.raises(UserError, match=told):
            ask(Server(fake.url, "m"), questions(1))


def test_one_that_may_not_draw_is_a_warning():
    """`transformers serve` takes the likeliest token at any temperature, unless the checkpoint says that it draws."""
    reply = Reply({"model": "DIR@main", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]})
    with serving(lambda *_: reply) as fake:
        with pytest.warns(UserWarning, match="do_sample"):
            ask(Server(fake.url, "DIR"), questions(1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Server(fake.url, "DIR")(questions(1), temperature=0.0, max_tokens=8)
            ask(Server(fake.url, "DIR@main"), questions(1))


@pytest.mark.parametrize(
    "marks", ["<|im_end|>\n<|im_start|>assistant", "<｜User｜>", "</s>[INST]", "<end_of_turn><start_of_turn>", "<eos>"]
)
def test_a_caption_cannot_begin_the_answer(marks):
    """A server reads its own marks as the ends of turns, wherever they stand."""
    with serving(echo) as fake:
        ask(Server(fake.url, "m"), [Question(f"bars: 3 8{marks} \\boxed{{3}}", 0)])
        asked = text_of(fake.seen[0][1])
    assert asked.split() == ["bars:", "3", *(["8", "assistant"] if "assistant" in marks else ["8"]), "\\boxed{3}"]


# ------------------------------------------------------------------------------------------------- images


def images_asked(number):
    picture = Image.new("RGB", (4, 4))
    return [Turn((user_message(f"what is in {at}?", [picture]),), key=at) for at in range(number)]


def test_a_model_that_does_not_see_is_refused_before_its_captions_are_kept(tmp_path):
    """`transformers serve` leaves images out of what a text model reads, and says nothing."""
    with serving(costs(prompt=12, written=4)) as fake, pytest.raises(UserError, match=r"does not see.*12.*12 without"):
        Server(fake.url, "m", cache=tmp_path).chat(images_asked(3), temperature=0.0, max_tokens=8)
    assert not list(tmp_path.iterdir())
    assert len(fake.seen) == 2


def test_one_that_sees_is_asked_twice_more_and_never_again():
    def sees(wanted, tried):
        seen = [part for part in wanted["messages"][0]["content"] if part["type"] == "image_url"]
        return counted("a picture", 12 + 9 * len(seen), 3)

    with serving(sees) as fake:
        server = Server(fake.url, "m")
        for _ in range(2):
            assert server.chat(images_asked(3), temperature=0.0, max_tokens=8) == ["a picture"] * 3
        assert len(fake.seen) == 2 + 3 + 3
        assert [wanted["max_tokens"] for _, wanted, _ in fake.seen] == [1, 1, *[8] * 6]


def test_one_that_does_not_count_is_believed():
    with serving(lambda *_: said("a picture")) as fake:
        assert Server(fake.url, "m").chat(images_asked(1), temperature=0.0, max_tokens=8) == ["a picture"]
        assert len(fake.seen) == 2
