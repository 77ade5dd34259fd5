"""What tests of single parts have in common."""

from collections.abc import AsyncIterator

import pytest

from shared.broker import Publisher
from tests.settling import Gateway
from tests.system import Urls


@pytest.fixture
def gateway() -> Gateway:
    """A gateway that approves, unless the test says otherwise."""
    return Gateway()


@pytest.fixture
async def publisher(urls: Urls) -> AsyncIterator[Publisher]:
    """A publisher to the module's virtual host."""
    publisher = Publisher(urls.amqp, name="test")
    yield publisher
    await publisher.close()
