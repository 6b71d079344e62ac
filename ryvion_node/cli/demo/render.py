"""The demo's events for a person: coloured in a terminal, the same words plain elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from ryvion_node.cli.demo import events as happened
from ryvion_node.cli.output import credits_text, make_console, price_text, short_key, speed_text

if TYPE_CHECKING:
    from rich.console import Console

    from ryvion_node.cli.demo.events import DemoEvent

_MARKS = {"passed": ("✓", "green"), "bounded": ("≤", "yellow"), "failed": ("✗", "bold red"), "absent": ("·", "dim")}
_OUTCOME_STYLES = {"won": "bold green", "bid": "cyan"}


class Renderer:
    """Writes each event as it comes. An answer is written piece by piece on one line."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or make_console()
        self._section = ""
        self._in_answer = False

    def show(self, event: DemoEvent) -> None:
        """Write one event."""
        if self._in_answer and not isinstance(event, happened.TextReceived):
            self._console.print("”", style="bold")
            self._in_answer = False
        match event:
            case happened.NodeStarting() | happened.NodeReady() | happened.NodeStopped():
                self._node(event)
            case happened.OfferHeard():
                self._offer(event)
            case happened.RequestSent():
                self._request(event)
            case happened.Bid():
                self._bid(event)
            case happened.Winner():
                runs_on = f"{event.gpu or 'CPU'} in {event.location or event.jurisdiction}, {event.jurisdiction}"
                self._line("winner", f"{event.node} ({runs_on}), chosen in {event.decided_ms} ms", "bold green")
                self._line("why", event.explanation)
            case happened.TextReceived():
                self._text(event.text)
            case happened.ReceiptReceived():
                self._receipt(event)
            case happened.Checked():
                mark, style = _MARKS.get(event.outcome, ("?", "yellow"))
                self._line("check", f"{mark} {event.name.replace('_', ' ')}: {event.detail}", style)
            case happened.Settled():
                self._settled(event)
            case happened.RequestRefused():
                self._line("refused", f"HTTP {event.status} {event.code}: {event.message}", "bold yellow")
            case happened.ReceiptVerified():
                self._verified(event)
            case happened.NetworkKept():
                self._kept(event)
            case happened.Finished():
                self._finished(event)
            case _:
                assert_never(event)

    def _title(self, section: str) -> None:
        if section != self._section:
            self._section = section
            self._console.print(f"\n[bold]{section}[/bold]")

    def _line(self, label: str, text: str, style: str = "") -> None:
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=9, style="dim")
        grid.add_column(overflow="fold")
        grid.add_row(Text(label), Text(text, style=style))
        self._console.print(Padding(grid, (0, 0, 0, 2), expand=False))

    def _node(self, event: happened.NodeStarting | happened.NodeReady | happened.NodeStopped) -> None:
        match event:
            case happened.NodeStarting():
                self._title("A market on this machine: four nodes, four processes")
                self._line("start", f"{event.name}: {event.role} (pid {event.pid})")
            case happened.NodeReady():
                where = f", endpoint {event.endpoint}" if event.endpoint else ""
                self._line(
                    "ready", f"{event.name}: {event.peer_id} after {event.after_ms / 1000:.1f} s{where}", "green"
                )
            case happened.NodeStopped():
                self._title("Stopping")
                how = "in order" if event.exit_code == 0 else f"with exit code {event.exit_code}"
                self._line("stopped", f"{event.name}, {how}", "" if event.exit_code == 0 else "red")

    def _offer(self, event: happened.OfferHeard) -> None:
        self._title("Signed offers the requester has heard by gossip")
        offer = event.offer
        for model in offer["models"]:
            price = f"{price_text(model['price_in'])} in, {price_text(model['price_out'])} out"
            room = (
                f"{model['slots_free']} of {model['slots_total']} slots free, {speed_text(model['millitokens_per_s'])}"
            )
            place = f"{offer['jurisdiction']} ({offer['location']})"
            self._line("offer", f"{event.node}: {model['name']} in {place}, {price}, {room}", "cyan")

    def _request(self, event: happened.RequestSent) -> None:
        where = f", only in {event.jurisdiction}" if event.jurisdiction else ", anywhere"
        self._title(f"Request {event.number}: {event.model}{where}, with the OpenAI client")
        self._line("prompt", event.prompt, "bold")

    def _bid(self, event: happened.Bid) -> None:
        candidate = event.candidate
        outcome = candidate["outcome"]
        text = f"{event.node}: {outcome.replace('_', ' ')}"
        if candidate["first_token_ms"] is not None:
            text += f", first token in {candidate['first_token_ms']} ms"
        if candidate["expected_cost"] is not None:
            text += f", {credits_text(candidate['expected_cost'])} credits expected"
        self._line("bid", f"{text}: {candidate['reason']}", _OUTCOME_STYLES.get(outcome, "dim"))

    def _text(self, text: str) -> None:
        if not self._in_answer:
            self._console.print("  answer    “", style="bold", end="")
            self._in_answer = True
        self._console.print(text, style="bold", end="", markup=False, soft_wrap=True)
        self._console.file.flush()

    def _receipt(self, event: happened.ReceiptReceived) -> None:
        receipt = event.receipt
        signer = f"signed by {short_key(receipt['node_public_key'])}"
        self._line("receipt", f"{receipt['cid']}")
        self._line("", f"{receipt['metering_units']} units for job {short_key(receipt['job_id'])}, {signer}")

    def _settled(self, event: happened.Settled) -> None:
        verdict = "accepted" if event.accepted else "NOT accepted, nothing is paid"
        tokens = f"{event.prompt_tokens} + {event.completion_tokens} tokens"
        text = f"{verdict}: {tokens} for {credits_text(event.cost)} credits"
        self._line("paid", text, "bold green" if event.accepted else "bold red")
        speed = "" if event.tokens_per_s is None else f", then {event.tokens_per_s:.0f} tokens/s"
        self._line("speed", f"first token after {event.first_token_ms} ms{speed}")

    def _verified(self, event: happened.ReceiptVerified) -> None:
        self._title("Anybody can verify the exported receipt, offline: ryvion-node receipts verify receipt.json")
        for verdict in event.verdicts:
            for finding in verdict["findings"]:
                mark, style = _MARKS.get(finding["outcome"], ("?", "yellow"))
                self._line("verify", f"{mark} {finding['name'].replace('_', ' ')}: {finding['detail']}", style)
        if event.exit_code != 0:
            self._line("verify", f"not valid (exit code {event.exit_code}) {event.error}", "bold red")

    def _kept(self, event: happened.NetworkKept) -> None:
        self._title("The network is running; Ctrl-C stops it")
        self._line("endpoint", event.endpoint, "bold")
        self._line("key", event.api_key, "bold")
        for line in _how_to_use(event):
            self._console.print(f"    {line}", markup=False, soft_wrap=True)

    def _finished(self, event: happened.Finished) -> None:
        seconds = f"{event.duration_ms / 1000:.1f} s"
        if event.ok:
            self._console.print(f"\n[bold green]Everything was as it should be.[/] ({seconds})")
            return
        self._console.print(f"\n[bold red]Something was not as it should be.[/] ({seconds})")
        for problem in event.problems:
            self._line("problem", problem, "red")


def _how_to_use(event: happened.NetworkKept) -> tuple[str, ...]:
    body = f'{{"model": "{event.model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return (
        "",
        f"export OPENAI_BASE_URL={event.endpoint} OPENAI_API_KEY={event.api_key}",
        'curl -N $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\',
        f"     -H 'Content-Type: application/json' -d '{body}'",
        f"ryvion-node offers --home {event.home}",
        f"ryvion-node route {event.model} --home {event.home}",
        f"ryvion-node receipts list --home {event.home}",
    )
