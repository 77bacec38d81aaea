from shared.adapters.cached_endpoints import CachedEndpoints
from shared.domain.endpoint_settings import EndpointSettings
from shared.domain.errors import BackendTimeout

STORED = EndpointSettings("tumor", log_inputs=0.1, version=3)


class Store:
    """An `EndpointStore` that counts, and fails while `error` is set."""

    def __init__(self) -> None:
        self.stored: EndpointSettings | None = STORED
        self.error: Exception | None = None
        self.asked = 0

    def get(self, endpoint: str) -> EndpointSettings | None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.stored if endpoint == "tumor" else None

    def put(self, settings: EndpointSettings) -> None:
        self.stored = settings

    def list(self) -> list[EndpointSettings]:
        return [] if self.stored is None else [self.stored]


def test_the_store_is_asked_once_in_its_time() -> None:
    store, now = Store(), [100.0]
    cached = CachedEndpoints(store, ttl_s=10, clock=lambda: now[0])
    assert [cached("tumor") for _ in range(3)] == [STORED] * 3
    assert store.asked == 1
    store.stored = EndpointSettings("tumor", version=4)
    now[0] = 110.0
    assert cached("tumor").version == 4


def test_what_nobody_set_has_the_defaults() -> None:
    store = Store()
    cached = CachedEndpoints(store)
    assert [cached("digits") for _ in range(2)] == [EndpointSettings("digits")] * 2
    assert store.asked == 1


def test_a_clock_that_is_set_back_does_not_keep_settings_for_ever() -> None:
    store, now = Store(), [1000.0]
    cached = CachedEndpoints(store, ttl_s=10, clock=lambda: now[0])
    cached("tumor")
    now[0] = 500.0
    cached("tumor")
    assert store.asked == 2


def test_while_the_store_fails_the_last_settings_hold_and_it_is_not_asked_each_time() -> None:
    store, now = Store(), [0.0]
    cached = CachedEndpoints(store, ttl_s=10, clock=lambda: now[0])
    cached("tumor")
    store.error, now[0] = BackendTimeout("slow"), 20.0
    assert [cached("tumor"), cached("tumor"), cached("digits")] == [STORED, STORED, EndpointSettings("digits")]
    assert store.asked == 3


def test_what_is_kept_is_bounded() -> None:
    store = Store()
    cached = CachedEndpoints(store, max_entries=2)
    for name in ("a", "b", "c", "a"):
        cached(name)
    assert store.asked == 4
