"""A little English: just enough function words and common verbs to tell a clause from a phrase. See `grounding.py`."""

from __future__ import annotations


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


BE = _words("is are was were")

VERBS = _words(
    "add allow answer ask avoid begin bring build call change check choose come contain cost create cut define"
    " describe do enable end explain fail find follow get give go handle happen have heat help hold implement include"
    " install keep know let lose make mean mix move need offer open pour press print produce provide put read reduce"
    " require return run save say see send set show start stop store support take tell try turn use want work write"
)
"""Their first form; the third person is made by adding an s."""

FINITE = BE | _words(
    "has had can cannot could will would may might must should does did met went came said made took gave got"
)

PRONOUNS = _words("it they this these that those we you i he she there here what who which how")

RELATIVES = _words("that which who whom whose where")
"""The verb behind them is not the sentence's own."""

ARTICLES = _words("a an the one")

BETWEEN = _words("also just once simply still")
"""May stand between `is` and what the subject is."""

OPENERS = ARTICLES | _words("all any each every another both some not no more most")
"""Function words that may begin a phrase."""

OPEN_ENDED = (
    FINITE
    | ARTICLES
    | PRONOUNS
    | _words(
        "of for to and or nor in on at with by from as into onto over under between through about than but if when"
        " where while so because not no also very more most all any such each every other another both its his her"
        " their our your my some be been being via per"
    )
)
"""No sentence ends with these."""

NO_OPENERS = _words("see read note please copyright dear yours")
"""What begins with these tells nothing about the rest."""
