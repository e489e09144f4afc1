"""The merchants' desk: some wearers bring back what they bought, all of it or a part, and get their money back through the
merchants' API, as a merchant's own program would do it: the same request again, under the same key, until there is an answer."""

import asyncio
from collections.abc import Iterable
from random import Random
from time import perf_counter
from uuid import uuid4

import httpx

from infra.sandbox.books import Approval, Wish
from infra.sandbox.world import Merchant
from schemas.errors import AugenblickError

_SHARE = 0.3
"""Of the purchases, how many come back; of those each third part whole, in part, and in two parts."""

_AGAIN = 0.2
"""How often the answer to a request is not heard, and the request therefore sent again."""

_LATER_S = 2.0
_PAUSE_S = 0.5
_PATIENCE_S = 120.0
_AGAIN_LATER = {"payment-busy", "idempotency-key-in-use", "unavailable"}
_ENDS = {"payment-frozen", "payment-state", "amount-too-large"}


class DeskFailed(AugenblickError):
    """The platform did not take a request that it has to take."""


class Desk:
    """`gateway` is http://…; `random` decides who brings what back."""

    def __init__(self, gateway: str, merchants: Iterable[Merchant], random: Random) -> None:
        self._tokens = {str(merchant.id): merchant.token for merchant in merchants}
        self._random = random
        self._client = httpx.AsyncClient(base_url=gateway, trust_env=False, timeout=20)
        self._tasks: set[asyncio.Task[None]] = set()
        self.wishes: list[Wish] = []

    def sold(self, approval: Approval) -> None:
        """Some of what is sold comes back."""
        if approval.told != "captured" or approval.payment_id is None or self._random.random() >= _SHARE:
            return
        minor, currency = approval.total
        part = self._random.randint(1, minor - 1)
        rest = self._random.randint(1, minor - part)
        parts = self._random.choice(([minor], [part], [part, rest]))
        wishes = [Wish(str(uuid4()), approval.payment_id, (each, currency)) for each in parts]
        self.wishes += wishes
        task = asyncio.create_task(self._give_back(wishes, approval, self._random.uniform(0, _LATER_S)))
        self._tasks.add(task)

    async def finish(self) -> None:
        """Until every request has its answer. Raises DeskFailed."""
        try:
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._client.aclose()

    async def _give_back(self, wishes: list[Wish], approval: Approval, later_s: float) -> None:
        await asyncio.sleep(later_s)
        for wish in wishes:
            patience = perf_counter() + _PATIENCE_S
            while not await self._ask(wish, approval):
                if perf_counter() > patience:
                    if wish.refused is None:
                        raise DeskFailed(f"A refund of {wish.payment_id} has no answer after {_PATIENCE_S:g} s")
                    break
                await asyncio.sleep(_PAUSE_S)

    async def _ask(self, wish: Wish, approval: Approval) -> bool:
        """Whether the wish has its answer. A refusal to be tried again is an answer as long as there is no other."""
        body = {} if wish.total == approval.total else {"amount": {"minor": wish.total[0], "currency": wish.total[1]}}
        headers = {"Authorization": f"Bearer {self._tokens[approval.merchant_id]}", "Idempotency-Key": wish.key}
        try:
            answer = await self._client.post(f"/v1/payments/{wish.payment_id}/refunds", json=body, headers=headers)
        except httpx.TransportError:
            wish.refused = None
            return False
        if answer.status_code == 202:
            wish.refused = None
            wish.commands.add(answer.json()["command"]["id"])
            return self._random.random() >= _AGAIN
        code = str(answer.json()["code"])
        if code not in _AGAIN_LATER | _ENDS:
            raise DeskFailed(f"A refund of {wish.payment_id} was refused: {code}")
        wish.refused = code if code in _ENDS or code == "payment-busy" else None
        return code in _ENDS
