"""A yes that is not the wearer's, not to this, or not now moves no money."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from infra.sandbox import localstripe
from infra.sandbox.glasses import DeviceKey, Glasses, LinkLost, Message
from schemas.gateway import CloseCode
from schemas.ids import DeviceId, MakerId
from schemas.payments import PaymentPolicy
from streams.gateway import provisioning
from tests.support.frames import barcode_jpeg, gtin13
from tests.support.rows import PairedGlasses
from tests.support.world import RunningPlatform

GTIN = gtin13(4711)


@pytest.fixture(scope="module", autouse=True)
async def product(platform: RunningPlatform) -> None:
    await platform.rows.product(platform.shop, gtin=GTIN)


async def proposed(glasses: Glasses) -> Message:
    answer = await glasses.look(barcode_jpeg(GTIN), "pay")
    assert answer["type"] == "offers.found", answer
    proposal = await glasses.request_payment(answer)
    assert proposal["type"] == "payment.proposed", proposal
    return proposal


async def refused(glasses: Glasses, sent: str) -> str:
    message = await glasses.expect(
        lambda message: (
            (message["type"] == "intent.refused" and message.get("subject") == sent)
            or (message["type"] == "gateway.problem" and message.get("id") == sent)
        )
    )
    problem = message.get("data") or message["problem"]
    return str(problem["code"])


async def assert_no_money_moved(platform: RunningPlatform, proposal: Message) -> None:
    journey = proposal["journeyid"]
    books = await localstripe.payment_intents(platform.provider)
    assert not [intent for intent in books if intent["metadata"].get("journey_id") == journey]
    assert await platform.rows.count("payments", journey_id=journey) == 0
    assert await platform.rows.count("approvals", proposal_id=proposal["data"]["terms"]["proposal_id"]) == 0


WRONG_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"iat": int(time.time()) - 100, "exp": int(time.time()) - 50},
    "another digest": {"digest": "0" * 64},
    "another nonce": {"nonce": "A" * 32},
    "another proposal": {"proposal_id": "prp_01m822bkbdezh8bj2tznzecm8g"},
    "lives too long": {"exp": int(time.time()) + 100_000},
    "an unknown presence": {"presence": "telepathy"},
    "more than was asked": {"amount": 1},
}


@pytest.mark.parametrize("name", WRONG_CLAIMS)
async def test_an_approval_with_wrong_claims(platform: RunningPlatform, name: str) -> None:
    async with platform.worn(await platform.payer()) as glasses:
        proposal = await proposed(glasses)
        sent = await glasses.send_approval(proposal, **WRONG_CLAIMS[name])
        assert await refused(glasses, sent) in {"approval-invalid", "approval-expired"}
        await assert_no_money_moved(platform, proposal)


async def send_raw(glasses: Glasses, proposal: Message, approval: str) -> str:
    data = {"proposal_id": proposal["data"]["terms"]["proposal_id"], "approval": approval}
    return await glasses.send("payment.approved", data, journey=proposal["journeyid"])


async def test_an_approval_signed_by_another_key(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer()) as glasses:
        proposal = await proposed(glasses)
        forged = DeviceKey().approve(proposal["data"])
        assert await refused(glasses, await send_raw(glasses, proposal, forged)) == "approval-invalid"
        await assert_no_money_moved(platform, proposal)


async def test_an_altered_approval(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer()) as glasses:
        proposal = await proposed(glasses)
        header, payload, signature = glasses.key.approve(proposal["data"]).split(".")
        flipped = ("B" if payload[10] == "A" else "A") if payload[10] != "B" else "C"
        altered = f"{header}.{payload[:10]}{flipped}{payload[11:]}.{signature}"
        assert await refused(glasses, await send_raw(glasses, proposal, altered)) == "approval-invalid"
        unsigned = f"eyJhbGciOiJub25lIn0.{payload}."
        assert await refused(glasses, await send_raw(glasses, proposal, unsigned)) == "event-invalid"
        await assert_no_money_moved(platform, proposal)


async def test_altered_terms_have_another_digest(platform: RunningPlatform) -> None:
    """Somebody in between shows other terms: the glasses refuse to sign; and if they signed them, it would not count."""
    async with platform.worn(await platform.payer()) as glasses:
        proposal = await proposed(glasses)
        altered = json.loads(json.dumps(proposal))
        altered["data"]["terms"]["total"]["minor"] = 1
        with pytest.raises(ValueError, match="nothing is signed"):
            await glasses.send_approval(altered)
        forged = glasses.key.approve(altered["data"])
        assert await refused(glasses, await send_raw(glasses, proposal, forged)) == "approval-invalid"
        await assert_no_money_moved(platform, proposal)


async def test_a_replayed_approval_pays_once(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer()) as glasses:
        proposal = await proposed(glasses)
        approval = glasses.key.approve(proposal["data"])
        first = await send_raw(glasses, proposal, approval)
        second = await send_raw(glasses, proposal, approval)
        assert await refused(glasses, second) == "proposal-closed"
        await glasses.payment(proposal["journeyid"], "captured")
        data = {"proposal_id": proposal["data"]["terms"]["proposal_id"], "approval": approval}
        await glasses.accepted(await glasses.send("payment.approved", data, journey=proposal["journeyid"], id=first))
        books = await localstripe.payment_intents(platform.provider)
        charged = [intent for intent in books if intent["metadata"].get("journey_id") == proposal["journeyid"]]
        assert len(charged) == 1
        assert await platform.rows.count("payments", journey_id=proposal["journeyid"]) == 1


async def test_an_approval_by_other_glasses(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer()) as glasses, platform.worn(await platform.payer()) as others:
        proposal = await proposed(glasses)
        approval = others.key.approve({"terms": {**proposal["data"]["terms"], "device_id": others.device_id}})
        sent = await send_raw(others, proposal, approval)
        assert await refused(others, sent) == "proposal-unknown"
        await assert_no_money_moved(platform, proposal)


@pytest.mark.parametrize("state", ["doffed", "folded"])
async def test_an_approval_after_the_glasses_were_taken_off(platform: RunningPlatform, state: str) -> None:
    async with platform.worn(await platform.payer()) as glasses:
        proposal = await proposed(glasses)
        await glasses.wear(state)
        closed = await glasses.expect(lambda message: message["type"] == "proposal.closed")
        assert closed["data"]["reason"] == state
        await glasses.wear("worn")
        assert await refused(glasses, await glasses.send_approval(proposal)) == "proposal-closed"
        await assert_no_money_moved(platform, proposal)


async def test_an_approval_after_the_link_was_lost(platform: RunningPlatform) -> None:
    paired: PairedGlasses = await platform.payer()
    async with platform.worn(paired) as glasses:
        proposal = await proposed(glasses)
    async with platform.worn(paired) as glasses:
        assert await refused(glasses, await glasses.send_approval(proposal)) == "proposal-closed"
        await assert_no_money_moved(platform, proposal)


async def test_glasses_that_are_not_worn_cannot_ask_to_pay(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer()) as glasses:
        answer = await glasses.look(barcode_jpeg(GTIN), "pay")
        await glasses.wear("doffed")
        assert (await glasses.request_payment(answer))["data"]["code"] == "not-worn"


async def test_an_offer_of_other_glasses_cannot_be_paid_for(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer()) as glasses, platform.worn(await platform.payer()) as others:
        answer = await glasses.look(barcode_jpeg(GTIN), "pay")
        assert (await others.request_payment(answer))["data"]["code"] == "offer-unknown"


async def test_a_second_request_replaces_the_first(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer()) as glasses:
        answer = await glasses.look(barcode_jpeg(GTIN), "pay")
        first, second = await glasses.request_payment(answer), await glasses.request_payment(answer, quantity=3)
        assert await refused(glasses, await glasses.send_approval(first)) == "proposal-closed"
        await glasses.send_approval(second)
        paid = await glasses.payment(answer["journeyid"], "captured")
        assert paid["data"]["total"]["minor"] == second["data"]["terms"]["total"]["minor"]


async def test_a_declined_card_is_told_and_nothing_is_taken(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer("declined")) as glasses:
        proposal = await proposed(glasses)
        await glasses.send_approval(proposal)
        await glasses.payment(proposal["journeyid"], "declined")
        books = await localstripe.payment_intents(platform.provider)
        taken = [intent for intent in books if intent["metadata"].get("journey_id") == proposal["journeyid"]]
        assert all(intent["status"] != "succeeded" for intent in taken)


async def test_a_card_that_wants_its_holder_to_act_waits_for_it(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer("needs_action")) as glasses:
        proposal = await proposed(glasses)
        await glasses.send_approval(proposal)
        await glasses.payment(proposal["journeyid"], "action_required")
        [intent] = [
            intent
            for intent in await localstripe.payment_intents(platform.provider)
            if intent["metadata"].get("journey_id") == proposal["journeyid"]
        ]
        await localstripe.authenticate(platform.provider, intent["id"])
        await glasses.payment(proposal["journeyid"], "captured", timeout_s=30)


async def test_two_approvals_at_once_pay_once(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer()) as glasses:
        proposal = await proposed(glasses)
        await asyncio.gather(*(glasses.send_approval(proposal) for _ in range(5)))
        await glasses.payment(proposal["journeyid"], "captured")
        assert await platform.rows.count("payments", journey_id=proposal["journeyid"]) == 1


# Devices come, change their key, and go: by their maker's word over HTTP.


class Maker:
    def __init__(self, api: httpx.AsyncClient, maker_id: MakerId, token: str) -> None:
        self.id = maker_id
        self._api = api
        self._headers = {"Authorization": f"Bearer {token}"}

    async def call(self, method: str, path: str, **body: Any) -> httpx.Response:
        return await self._api.request(method, f"/v1/devices{path}", headers=self._headers, json=body or None)

    async def pair(self, platform: RunningPlatform) -> PairedGlasses:
        """With a means of payment, which the operator sets up."""
        key = DeviceKey()
        response = await self.call(
            "POST",
            "",
            public_key=key.public_base64,
            locale="de-DE",
            currency="EUR",
            region="DE",
            proof=key.prove_pairing(self.id),
        )
        assert response.status_code == 201, response.text
        device_id = DeviceId(response.json()["id"])
        payer = await localstripe.seed_payer(platform.provider)
        async with platform.database.transaction() as connection:
            await provisioning.set_payer(connection, platform.rows.sealer, device_id, payer)
        return PairedGlasses(device_id, key)


@pytest.fixture
async def maker(platform: RunningPlatform) -> AsyncIterator[Maker]:
    async with httpx.AsyncClient(base_url=platform.api) as api:
        yield Maker(api, *await platform.rows.maker())


async def hung_up(glasses: Glasses, code: int) -> None:
    """With this close code. That it takes a second at most, tests/integration/gateway/test_links.py says."""
    with pytest.raises(LinkLost, match=f"^{code} "):
        await glasses.expect(lambda message: False, timeout_s=10.0, after=len(glasses.received))


async def refused_to_connect(platform: RunningPlatform, device_id: str, key: DeviceKey, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with Glasses.connected(platform.gateway, device_id, key):
            pass
    assert refused.value.response.status_code == status


async def test_a_revoked_device_is_hung_up_on_and_its_yes_counts_no_more(platform: RunningPlatform, maker: Maker) -> None:
    paired = await maker.pair(platform)
    async with platform.worn(paired) as glasses:
        proposal = await proposed(glasses)
        assert (await maker.call("DELETE", f"/{paired.device_id}")).status_code == 204
        await hung_up(glasses, CloseCode.REVOKED)
        await assert_no_money_moved(platform, proposal)
    await refused_to_connect(platform, paired.device_id, paired.key, 403)


async def test_the_old_key_counts_nowhere_once_it_was_changed(platform: RunningPlatform, maker: Maker) -> None:
    paired, new = await maker.pair(platform), DeviceKey()
    proofs = {
        "proof_old": paired.key.prove_key_change(paired.device_id, new),
        "proof_new": new.prove_key_change(paired.device_id, new),
    }
    async with platform.worn(paired) as glasses:
        proposal = await proposed(glasses)
        response = await maker.call("POST", f"/{paired.device_id}/key", public_key=new.public_base64, **proofs)
        assert response.status_code == 200, response.text
        await hung_up(glasses, CloseCode.KEY_CHANGED)
        await assert_no_money_moved(platform, proposal)
    await refused_to_connect(platform, paired.device_id, paired.key, 401)
    async with platform.worn(PairedGlasses(paired.device_id, new)) as glasses:
        assert await refused(glasses, await glasses.send_approval(proposal)) == "proposal-closed"
        fresh = await proposed(glasses)
        forged = paired.key.approve(fresh["data"])
        assert await refused(glasses, await send_raw(glasses, fresh, forged)) == "approval-invalid"
        await glasses.send_approval(fresh)
        await glasses.payment(fresh["journeyid"], "captured")


async def test_an_intent_that_grew_old_on_its_way_is_asked_for_again(platform: RunningPlatform) -> None:
    async with platform.worn(await platform.payer()) as glasses:
        answer = await glasses.look(barcode_jpeg(GTIN), "pay")
        wish = {"offer_id": answer["data"]["offers"][0]["offer_id"], "quantity": 1}
        happened = (datetime.now(UTC) - timedelta(seconds=40)).isoformat()
        sent = await glasses.send("payment.requested", wish, journey=answer["journeyid"], time=happened)
        assert await refused(glasses, sent) == "intent-stale"
        assert (await glasses.request_payment(answer))["type"] == "payment.proposed"


async def test_a_large_amount_wants_a_certain_yes(platform: RunningPlatform) -> None:
    shop = platform.shop.merchant_id
    rules = {"limits": [{"currency": "SEK", "per_payment": 4000, "presence_above": 2000, "presence": ["press"]}]}
    async with platform.database.transaction() as connection:
        await provisioning.set_policy(connection, shop, PaymentPolicy.model_validate(rules, strict=False))
    try:
        async with platform.worn(await platform.payer()) as glasses:
            answer = await glasses.look(barcode_jpeg(GTIN), "pay")  # one costs 17.95 SEK
            proposal = await glasses.request_payment(answer, quantity=2)
            assert proposal["data"]["terms"]["presence"] == ["press"]
            assert await refused(glasses, await glasses.send_approval(proposal, "nod")) == "approval-invalid"
            assert (await glasses.request_payment(answer, quantity=3))["data"]["code"] == "limit-exceeded"
            small = await glasses.request_payment(answer)
            await glasses.send_approval(small, "nod")
            await glasses.payment(answer["journeyid"], "captured")
    finally:
        async with platform.database.transaction() as connection:
            await provisioning.remove_policy(connection, shop)
