"""The facts that `bench facts` plants: sentences, and by hand-written rules the questions that look for them. Pure.

Facts of a kind differ in names and numbers only, and names are used again. Beside them stand twins: sentences of the
same kinds that are no facts, with other names and numbers, often with one of the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

NAMES = [
    "Anna",
    "Bruno",
    "Carla",
    "David",
    "Elena",
    "Felix",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Karin",
    "Leon",
    "Mara",
    "Nils",
    "Olga",
    "Paul",
]
SURNAMES = [
    "Abel",
    "Berger",
    "Conti",
    "Dahl",
    "Egger",
    "Fink",
    "Gruber",
    "Holm",
    "Ivanov",
    "Jansen",
    "Keller",
    "Lang",
    "Moser",
    "Novak",
    "Orban",
    "Pohl",
]
PLACES = [
    "Lisbon",
    "Bergen",
    "Genoa",
    "Riga",
    "Malmo",
    "Trieste",
    "Varna",
    "Cork",
    "Nantes",
    "Gdansk",
    "Split",
    "Turku",
]
FIRMS = ["Alder", "Birch", "Cedar", "Damson", "Elm", "Fir", "Gorse", "Hazel", "Ivy", "Juniper"]
THINGS = ["pumps", "valves", "sensors", "bearings", "cables", "filters", "motors", "switches", "lenses", "hinges"]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
CN_NAMES = ["王伟", "李娜", "张敏", "刘洋", "陈静", "杨磊", "赵强", "黄丽", "周涛", "吴芳"]
CN_CITIES = ["北京", "上海", "广州", "成都", "武汉", "西安", "杭州", "南京"]
CN_GOODS = ["水泵", "阀门", "电缆", "轴承", "滤芯", "电机", "开关", "镜片"]
ENGLISH = {  # of the Chinese above
    "北京": "Beijing",
    "上海": "Shanghai",
    "广州": "Guangzhou",
    "成都": "Chengdu",
    "武汉": "Wuhan",
    "西安": "Xi'an",
    "杭州": "Hangzhou",
    "南京": "Nanjing",
    "水泵": "pumps",
    "阀门": "valves",
    "电缆": "cables",
    "轴承": "bearings",
    "滤芯": "filters",
    "电机": "motors",
    "开关": "switches",
    "镜片": "lenses",
    "王伟": "Wang Wei",
    "李娜": "Li Na",
    "张敏": "Zhang Min",
    "刘洋": "Liu Yang",
    "陈静": "Chen Jing",
    "杨磊": "Yang Lei",
    "赵强": "Zhao Qiang",
    "黄丽": "Huang Li",
    "周涛": "Zhou Tao",
    "吴芳": "Wu Fang",
}
RULES = ("order", "synonyms", "question")
FOREIGN = "English"  # a Chinese fact, asked for in English: only numbers are the same


class Fact(msgspec.Struct, frozen=True):
    """A sentence; `questions`: by the name of a rule, how somebody asks for it in other words."""

    text: str
    kind: str
    questions: dict[str, str]


def _date(chance: random.Random) -> str:
    return f"{chance.randrange(1, 29)} {chance.choice(MONTHS)} {chance.randrange(1988, 2026)}"


def _code(chance: random.Random) -> str:
    return f"{chance.choice('ABCDEFGHKLMNPRSTUVWXYZ')}{chance.randrange(1000, 9999)}-{chance.randrange(10, 99)}"


def _person(chance: random.Random) -> str:
    return f"{chance.choice(NAMES)} {chance.choice(SURNAMES)}"


def _door(chance: random.Random) -> Fact:
    firm, place, code = chance.choice(FIRMS), chance.choice(PLACES), _code(chance)
    floor = chance.randrange(1, 30)
    return Fact(
        f"The door code for floor {floor} of the {firm} office in {place} is {code}.",
        "door",
        {
            "order": f"{place} {firm} office, floor {floor}, code of the door",
            "synonyms": f"entry key of storey {floor} at {firm}, {place} branch",
            "question": f"What do I have to type to get into the {firm} rooms on floor {floor} in {place}?",
        },
    )


def _birth(chance: random.Random) -> Fact:
    who, place, date = _person(chance), chance.choice(PLACES), _date(chance)
    badge = chance.randrange(10_000, 99_999)
    return Fact(
        f"{who}, badge {badge}, was born in {place} on {date}.",
        "birth",
        {
            "order": f"on which date born in {place}: {who}, badge {badge}",
            "synonyms": f"birthday of employee number {badge}, {who}",
            "question": f"When did {who} with the badge {badge} come into the world?",
        },
    )


def _bill(chance: random.Random) -> Fact:
    firm, number, cents = chance.choice(FIRMS), chance.randrange(20_000, 99_999), chance.randrange(10_000, 999_999)
    return Fact(
        f"Invoice {number} of {firm} Limited amounts to {cents // 100:,}.{cents % 100:02} euros.",
        "bill",
        {
            "order": f"amounts in euros: {firm} Limited, invoice {number}",
            "synonyms": f"sum of bill {number} from {firm}",
            "question": f"How much money does {firm} want from us with number {number}?",
        },
    )


def _server(chance: random.Random) -> Fact:
    host, port = f"{chance.choice(FIRMS).lower()}-{chance.choice(PLACES).lower()}-{chance.randrange(1, 60):02}", 0
    port = chance.randrange(2_000, 60_000)
    return Fact(
        f"The host {host} listens on port {port} since {_date(chance)}.",
        "server",
        {
            "order": f"port on which listens {host}",
            "synonyms": f"socket number of machine {host}",
            "question": f"Where do I connect to when I want to talk to {host}?",
        },
    )


def _ship(chance: random.Random) -> Fact:
    ship, place, number = f"{chance.choice(PLACES)} {chance.choice(SURNAMES)}", chance.choice(PLACES), 0
    number, date = chance.randrange(100, 9_000), _date(chance)
    return Fact(
        f"The ship {ship} left {place} on {date} with {number} crates of {chance.choice(THINGS)}.",
        "ship",
        {
            "order": f"crates on the {ship} when it left {place}, {date}",
            "synonyms": f"cargo of vessel {ship} departing {place} {date}",
            "question": f"How much was aboard when the {ship} sailed from {place} in {date.split(' ', 1)[1]}?",
        },
    )


def _staff(chance: random.Random) -> Fact:
    name, city, number = chance.choice(CN_NAMES), chance.choice(CN_CITIES), chance.randrange(10_000, 99_999)
    room = chance.randrange(100, 999)
    return Fact(
        f"{city}分公司{room}室的{name}的员工编号是{number}。",
        "staff (Chinese)",
        {
            "order": f"员工编号: {name}, {room}室, {city}分公司",
            "synonyms": f"{city}办事处{room}房{name}的工号",
            "question": f"请问在{city}{room}室上班的{name}, 他的号码是多少?",
            FOREIGN: f"staff number of {ENGLISH[name]}, room {room}, {ENGLISH[city]} branch",
        },
    )


def _stock(chance: random.Random) -> Fact:
    city, goods, number = chance.choice(CN_CITIES), chance.choice(CN_GOODS), chance.randrange(100, 9_999)
    store = chance.randrange(1, 80)
    return Fact(
        f"{city}第{store}号仓库现有{goods}{number}箱。",
        "stock (Chinese)",
        {
            "order": f"{goods}有多少箱, {city}仓库第{store}号",
            "synonyms": f"{city}{store}号库房{goods}库存",
            "question": f"我们在{city}的{store}号库里还剩多少{goods}?",
            FOREIGN: f"how many boxes of {ENGLISH[goods]} are in warehouse number {store} in {ENGLISH[city]}",
        },
    )


def _dose(chance: random.Random) -> Fact:
    who, ward, bed = _person(chance), chance.randrange(1, 40), chance.randrange(1, 60)
    return Fact(
        f"Patient {who} in bed {bed} of ward {ward} gets {chance.randrange(5, 900)} mg at {chance.randrange(24)}:00.",
        "dose",
        {
            "order": f"mg for ward {ward}, bed {bed}, patient {who}",
            "synonyms": f"dose of {who}, station {ward}, place {bed}",
            "question": f"What is given to {who}, who lies in ward {ward}, bed {bed}, and when?",
        },
    )


MAKERS: tuple[Callable[[random.Random], Fact], ...] = (_door, _birth, _bill, _server, _ship, _staff, _stock, _dose)


def facts(chance: random.Random, count: int) -> list[Fact]:
    """So many facts, of each kind in turn, none twice."""
    made: dict[str, Fact] = {}
    while len(made) < count:
        fact = MAKERS[len(made) % len(MAKERS)](chance)
        made.setdefault(fact.text, fact)
    return list(made.values())


def twin(chance: random.Random) -> str:
    """A sentence like a fact, which is none."""
    return chance.choice(MAKERS)(chance).text
