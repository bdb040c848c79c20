"""What a browser with a publishable key may do at the simulator."""

KEY = {"Authorization": "Bearer pk_test_sim_gazette"}
CARD = {
    "payment_method_data[type]": "card",
    "payment_method_data[card][number]": "4242 4242 4242 4242",
    "payment_method_data[card][exp_month]": "12",
    "payment_method_data[card][exp_year]": "34",
    "payment_method_data[card][cvc]": "123",
}


async def _intent(simulator):
    return await simulator.client().v1.payment_intents.create_async({"amount": 900, "currency": "eur"})


async def test_browser_confirms_with_the_client_secret(simulator) -> None:
    intent = await _intent(simulator)
    form = CARD | {"client_secret": intent.client_secret, "use_stripe_sdk": "true", "key": "pk_test_sim_gazette"}
    status, body, headers = await simulator.post(f"/v1/payment_intents/{intent.id}/confirm", form)
    assert (status, body["status"]) == (200, "succeeded")
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "customer" not in body
    assert "metadata" not in body


async def test_browser_needs_the_client_secret(simulator) -> None:
    intent = await _intent(simulator)
    status, body, _ = await simulator.post(
        f"/v1/payment_intents/{intent.id}/confirm", CARD | {"client_secret": "pi_secret_wrong"}, **KEY
    )
    assert (status, body["error"]["param"]) == (400, "client_secret")


async def test_browser_cannot_make_payments_or_read_customers(simulator) -> None:
    status, body, _ = await simulator.post("/v1/payment_intents", {"amount": "900", "currency": "eur"}, **KEY)
    assert status == 401
    assert "publishable" in body["error"]["message"]


async def test_card_numbers_are_refused_from_a_server(simulator) -> None:
    intent = await _intent(simulator)
    status, body, _ = await simulator.post(
        f"/v1/payment_intents/{intent.id}/confirm",
        CARD | {"return_url": "https://news.example"},
        Authorization="Bearer sk_test_sim_gazette",
    )
    assert status == 402
    assert "generally unsafe" in body["error"]["message"]


async def test_mistyped_card_is_told_apart(simulator) -> None:
    intent = await _intent(simulator)
    form = CARD | {"client_secret": intent.client_secret, "use_stripe_sdk": "true"}
    for change, code in (
        ({"payment_method_data[card][number]": "4242424242424241"}, "incorrect_number"),
        ({"payment_method_data[card][exp_month]": "13"}, "invalid_expiry_month"),
        ({"payment_method_data[card][exp_year]": "20"}, "invalid_expiry_year"),
        ({"payment_method_data[card][cvc]": "1"}, "invalid_cvc"),
        ({"payment_method_data[card][number]": "4111111111111111"}, "card_declined"),
    ):
        status, body, _ = await simulator.post(f"/v1/payment_intents/{intent.id}/confirm", form | change, **KEY)
        assert (status, body["error"]["code"]) == (402, code)


async def test_preflight_is_answered(simulator) -> None:
    async with simulator.session.options(f"{simulator.url}/v1/payment_intents/pi_3/confirm") as response:
        assert response.status == 204
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]


async def test_unknown_call_is_not_found(simulator) -> None:
    status, body, _ = await simulator.post("/v1/tea_pots", Authorization="Bearer sk_test_sim_gazette")
    assert (status, body["error"]["type"]) == (404, "invalid_request_error")
