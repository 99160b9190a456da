"""Sentences that customers and helpers write, by language and mood: combinations of parts, none of a real person."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import product

from churnkit.simulate.world import LANGUAGES

MOODS = ("angry", "worried", "plain", "happy")
CATEGORIES = ("bug", "billing", "how_to", "access", "equipment", "feature_request")

SUBJECTS = {
    "bug": ("Report does not load", "Numbers are wrong since the update", "Error when saving", "Export breaks off"),
    "billing": ("Question on our invoice", "New price", "Payment did not go through", "Wrong amount"),
    "how_to": ("How do I share a dashboard?", "Where is the monthly view?", "Help with the first steps"),
    "access": ("New colleague cannot log in", "Password reset", "Please change our permissions"),
    "equipment": ("Unit reports an error", "Strange noise from the machine", "Sensor shows no values"),
    "feature_request": ("Could you add a filter?", "Wish: weekly summary", "An idea for the export"),
}

_WHAT = {
    "en": {"bug": "the report stops with an error", "billing": "the invoice does not match our contract",
           "how_to": "we do not find the monthly view", "access": "a colleague cannot log in",
           "equipment": "one of our units shows an error code",
           "feature_request": "a filter by region would help us"},
    "de": {"bug": "der Bericht bricht mit einem Fehler ab", "billing": "die Rechnung passt nicht zu unserem Vertrag",
           "how_to": "wir finden die Monatsansicht nicht", "access": "eine Kollegin kann sich nicht anmelden",
           "equipment": "eines unserer Geräte zeigt einen Fehlercode",
           "feature_request": "ein Filter nach Region würde uns helfen"},
    "fr": {"bug": "le rapport s'arrête sur une erreur", "billing": "la facture ne correspond pas à notre contrat",
           "how_to": "nous ne trouvons pas la vue mensuelle", "access": "une collègue ne peut pas se connecter",
           "equipment": "un de nos appareils affiche un code d'erreur",
           "feature_request": "un filtre par région nous aiderait"},
    "es": {"bug": "el informe se detiene con un error", "billing": "la factura no coincide con nuestro contrato",
           "how_to": "no encontramos la vista mensual", "access": "una compañera no puede entrar",
           "equipment": "uno de nuestros equipos muestra un código de error",
           "feature_request": "un filtro por región nos ayudaría"},
}
_OPEN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "en": {"angry": ("This is the third time", "I am really disappointed", "Unacceptable"),
           "worried": ("We have a problem", "Sorry to bother you again", "This is a bit frustrating"),
           "plain": ("Hello", "Hi team", "Good morning"),
           "happy": ("Hi, great product", "Hello, we love the new version")},
    "de": {"angry": ("Das ist nun das dritte Mal", "Ich bin sehr enttäuscht", "So geht es nicht"),
           "worried": ("Wir haben ein Problem", "Leider muss ich mich wieder melden"),
           "plain": ("Guten Tag", "Hallo zusammen"),
           "happy": ("Hallo, ein tolles Produkt", "Guten Tag, danke für die neue Version")},
    "fr": {"angry": ("C'est la troisième fois", "Je suis très déçu"), "worried": ("Nous avons un problème",
                                                                                  "Désolée de revenir"),
           "plain": ("Bonjour", "Bonjour à toute l'équipe"),
           "happy": ("Bonjour, excellent produit", "Bonjour, merci pour la mise à jour")},
    "es": {"angry": ("Es la tercera vez", "Estoy muy decepcionado"), "worried": ("Tenemos un problema",
                                                                                 "Siento molestar de nuevo"),
           "plain": ("Hola", "Buenos días"),
           "happy": ("Hola, un gran producto", "Hola, gracias por la nueva versión")},
}
_CLOSE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "en": {"angry": ("This is terrible, we are losing time and money. 😠",
                     "If this is not fixed we will look for something else.",
                     "Nobody answers, and I am fed up with it."),
           "worried": ("It is slowing us down and we are worried.", "Could somebody please look at it soon? 😕"),
           "plain": ("Could you have a look?", "Thanks in advance.", "What should we do?"),
           "happy": ("No hurry, thank you so much! 😊", "You are always a great help, thanks!")},
    "de": {"angry": ("Das ist furchtbar und kostet uns Zeit und Geld. 😠",
                     "Wenn das so bleibt, sehen wir uns anderswo um."),
           "worried": ("Das bremst uns und macht uns Sorgen.", "Kann sich das bitte bald jemand ansehen? 😕"),
           "plain": ("Können Sie bitte nachsehen?", "Danke im Voraus."),
           "happy": ("Es eilt nicht, vielen Dank! 😊", "Sie helfen immer wunderbar, danke!")},
    "fr": {"angry": ("C'est terrible, nous perdons du temps et de l'argent. 😠",
                     "Si cela continue, nous irons ailleurs."),
           "worried": ("Cela nous ralentit et nous inquiète.", "Quelqu'un peut-il regarder bientôt ? 😕"),
           "plain": ("Pouvez-vous regarder ?", "Merci d'avance."),
           "happy": ("Rien d'urgent, merci beaucoup ! 😊", "Votre aide est toujours parfaite, merci !")},
    "es": {"angry": ("Es terrible, perdemos tiempo y dinero. 😠", "Si sigue así, buscaremos otra cosa."),
           "worried": ("Nos retrasa y nos preocupa.", "¿Puede alguien mirarlo pronto? 😕"),
           "plain": ("¿Pueden mirarlo?", "Gracias de antemano."),
           "happy": ("Sin prisa, ¡muchas gracias! 😊", "Siempre son de gran ayuda, ¡gracias!")},
}
REPLIES = ("Thank you for your message. We are looking into it.", "Thanks for waiting, I have asked our engineers.",
           "I am sorry for the trouble. Could you send us a screenshot?",
           "We have found it and will come back to you today.")
BOT_REPLIES = ("I found these help pages for you. Did that solve it?", "Here is an article that may help.",
               "I did not quite understand. Could you put it in other words?")
SOLVED = ("This is mended now. Please tell us if it comes back.", "We have changed the setting. All should be well.",
          "Solved with today's update. Thank you for your patience.")
AGAIN = {
    "angry": ("Still broken. This is really bad.", "I am still waiting, this is very annoying. 😠",
              "I want to speak to a person, not to a bot."),
    "worried": ("Any news? We are stuck and it is a problem.", "It still fails on our side. 😕"),
    "plain": ("Any news on this?", "Here is the screenshot."),
    "happy": ("Thanks, that helped a lot!", "Perfect, great service. 👍"),
}
COMMENTS = {
    "angry": ("Too many faults, and support is slow. Very disappointed.", "We are unhappy and thinking of leaving."),
    "worried": ("It could be better; we had some trouble lately.", "Somewhat difficult for new colleagues."),
    "plain": ("Does what it should.", "All right."),
    "happy": ("We love it, great value and great people!", "Excellent, it saves us hours every week. 😀"),
}


@cache
def bodies() -> tuple[tuple[str, ...], dict[tuple[int, int, int], tuple[int, int]]]:
    """All first messages, and for each (language, mood, category) where its own begin and how many they are."""
    texts: list[str] = []
    where = {}
    for language, mood, category in product(range(len(LANGUAGES)), range(len(MOODS)), range(len(CATEGORIES))):
        word, feeling = LANGUAGES[language], MOODS[mood]
        made = [f"{opening}, {_WHAT[word][CATEGORIES[category]]}. {closing}"
                for opening, closing in product(_OPEN[word][feeling], _CLOSE[word][feeling])]
        where[language, mood, category] = (len(texts), len(made))
        texts += made
    return tuple(texts), where


def listed(groups: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, ...], list[int], list[int]]:
    """The texts of all groups in one row, with each group's start and count."""
    texts: list[str] = []
    starts, counts = [], []
    for group in groups.values():
        starts.append(len(texts))
        counts.append(len(group))
        texts += group
    return tuple(texts), starts, counts
