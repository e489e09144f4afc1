"""What every connector must do, as tests: one suite per port, for ours and for yours.

    from connectors.conformance.shops import ShopConformance

    class TestMyShop(ShopConformance):
        @pytest.fixture
        def connector(self): return MyShop(...)
        ...

Each suite's docstring lists the fixtures it asks for. Needs pytest and pytest-asyncio.
"""

import pytest

pytest.register_assert_rewrite(
    "connectors.conformance.payments", "connectors.conformance.shops", "connectors.conformance.translators"
)
