"""stub"""


def prefix_of(output):
    return ""


def grammar(text, prefix):
    return 'root ::= "x"'
