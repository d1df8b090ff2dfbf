"""What TensorBoard shows first. A page error, a console error or a request to another host fails."""

import pytest


@pytest.mark.slow
def test_the_first_page_shows_the_returns_pinned_above_all_other_curves(board, open_page):
    page = open_page(board.page)
    cards = page.locator("metrics-pinned-view scalar-card")
    for number in (0, 1):
        cards.nth(number).get_by_text("mlbits-CartPole-v0/ppo/seed 1").wait_for()
    others = page.locator("scalar-card:not(metrics-pinned-view scalar-card)").first
    others.wait_for()
    told = [" ".join(card.inner_text().split()) for card in cards.all()]
    assert [text.replace(" /", "/").split(" ")[0] for text in told] == ["return/eval", "return/train"]
    for text in told:  # the value at step 10
        for name, value in (("mean of 2 seeds", 2), ("seed 0", 1), ("seed 1", 3)):
            assert f"mlbits-CartPole-v0/ppo/{name} {value} 10 " in text
    assert cards.nth(1).bounding_box()["y"] < page.viewport_size["height"] / 2  # nobody scrolls to them
    assert cards.nth(1).bounding_box()["y"] < others.bounding_box()["y"]
    page.close()
