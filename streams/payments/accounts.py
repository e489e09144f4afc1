"""Merchants' accounts with payment providers: their credentials, sealed, and the connectors made from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors import registry
from connectors.ports import PaymentConnector
from schemas.digests import canonical_json, sha256_hex
from schemas.errors import Rejected
from schemas.ids import AccountId, MerchantId
from schemas.tables import merchants, provider_accounts
from streams.core.sealing import Sealer

UNNAMED = "default"
"""What a connector calls an account whose name at the provider it was not told."""


@dataclass(frozen=True)
class Account:
    """`changed_at`: when its credentials were last given. A removed one takes no new payments, and is still asked about old
    ones."""

    id: AccountId
    merchant_id: MerchantId
    provider: str
    external_id: str
    credentials_sealed: bytes
    changed_at: datetime
    removed: bool


class Accounts:
    """Connectors, each made when it is first needed and again when its credentials change. `public_url` is the gateway's."""

    def __init__(self, sealer: Sealer, public_url: str | None = None) -> None:
        self._sealer = sealer
        self._public_url = public_url
        self._made: dict[AccountId, tuple[datetime, PaymentConnector]] = {}

    def connector(self, account: Account) -> PaymentConnector:
        """Raises Misconfigured where the credentials cannot be used."""
        made = self._made.get(account.id)
        if made is not None and made[0] == account.changed_at:
            return made[1]
        credentials = json.loads(self._sealer.open(account.credentials_sealed, _context(account.id)))
        connector = registry.payments(account.provider, credentials, notify_url=self._notify_url(account), strict=False)
        # One that is replaced may still be calling; it is closed with the process.
        self._made[account.id] = (account.changed_at, connector)
        return connector

    def _notify_url(self, account: Account) -> str | None:
        return notification_url(self._public_url, account.provider, account.id)

    def shared(self, listed: Sequence[Account]) -> list[list[Account]]:
        """Accounts of one provider, those together that are one there: by the provider's name for it, or by their credentials
        where the provider gives none."""
        together: dict[str, list[Account]] = {}
        for account in listed:
            name = account.external_id
            if name == UNNAMED:
                opened = json.loads(self._sealer.open(account.credentials_sealed, _context(account.id)))
                name = sha256_hex(canonical_json(opened))
            together.setdefault(name, []).append(account)
        return list(together.values())

    async def close(self) -> None:
        for _, connector in self._made.values():
            await connector.close()
        self._made.clear()


def notification_url(public_url: str | None, provider: str, account_id: AccountId) -> str | None:
    """Where the provider says what happens to the account. None where the gateway's address is not known."""
    return f"{public_url.rstrip('/')}/v1/notifications/{provider}/{account_id}" if public_url else None


def of_row(row: Row[Any], prefix: str = "") -> Account:
    """From a row with `columns(prefix)`."""
    return Account(
        id=AccountId(getattr(row, f"{prefix}id")),
        merchant_id=MerchantId(getattr(row, f"{prefix}merchant_id")),
        provider=getattr(row, f"{prefix}provider"),
        external_id=getattr(row, f"{prefix}external_id"),
        credentials_sealed=getattr(row, f"{prefix}credentials_sealed"),
        changed_at=getattr(row, f"{prefix}updated_at"),
        removed=getattr(row, f"{prefix}removed_at") is not None,
    )


def columns(prefix: str = "") -> list[Any]:
    names = ("id", "merchant_id", "provider", "external_id", "credentials_sealed", "updated_at", "removed_at")
    return [provider_accounts.c[name].label(prefix + name) for name in names]


async def find(connection: AsyncConnection, account_id: AccountId) -> Account | None:
    row = (await connection.execute(select(*columns()).where(provider_accounts.c.id == account_id))).one_or_none()
    return of_row(row) if row else None


async def listed(
    connection: AsyncConnection, *, merchant_id: MerchantId | None = None, provider: str | None = None
) -> Sequence[Account]:
    """All of them, or a merchant's, or a provider's; removed ones, too."""
    query = select(*columns()).order_by(provider_accounts.c.created_at)
    if merchant_id is not None:
        query = query.where(provider_accounts.c.merchant_id == merchant_id)
    if provider is not None:
        query = query.where(provider_accounts.c.provider == provider)
    return [of_row(row) for row in await connection.execute(query)]


async def add(
    connection: AsyncConnection, sealer: Sealer, merchant_id: MerchantId, provider: str, credentials: Mapping[str, str]
) -> AccountId:
    """Connect a merchant with a provider, or give new credentials for the account that is connected already. Raises Misconfigured
    where the credentials cannot be right, and Rejected where the merchant is not known or another account is in use."""
    connector = registry.payments(provider, credentials)
    external_id, currencies = connector.account, connector.capabilities.currencies
    await connector.close()
    if not (await connection.execute(select(exists().where(merchants.c.id == merchant_id)))).scalar_one():
        raise Rejected("not-found", f"there is no merchant {merchant_id}")
    query = select(provider_accounts.c.id, provider_accounts.c.external_id).where(
        provider_accounts.c.merchant_id == merchant_id,
        provider_accounts.c.provider == provider,
        provider_accounts.c.removed_at.is_(None),
    )
    used = (await connection.execute(query.with_for_update())).one_or_none()
    if used is not None and used.external_id != external_id:
        raise Rejected("request-invalid", f"the merchant's account {used.external_id} is in use for {provider}: remove it first")
    account_id = AccountId(used.id) if used else AccountId.new()
    sealed = sealer.seal(json.dumps(dict(credentials)).encode(), _context(account_id))
    values = {"credentials_sealed": sealed, "currencies": sorted(currencies) if currencies is not None else None}
    if used:
        statement = update(provider_accounts).where(provider_accounts.c.id == account_id)
        await connection.execute(statement.values(**values, updated_at=func.now()))
    else:
        row = {"id": account_id, "merchant_id": merchant_id, "provider": provider, "external_id": external_id, **values}
        await connection.execute(insert(provider_accounts).values(row))
    return account_id


async def remove(connection: AsyncConnection, account_id: AccountId) -> bool:
    """It takes no new payments from now on. False where there is none in use by this id."""
    statement = (
        update(provider_accounts)
        .where(provider_accounts.c.id == account_id, provider_accounts.c.removed_at.is_(None))
        .values(removed_at=func.now())
        .returning(provider_accounts.c.id)
    )
    return (await connection.execute(statement)).one_or_none() is not None


def _context(account_id: AccountId) -> str:
    return f"account:{account_id}"
