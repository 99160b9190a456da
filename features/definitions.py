"""What Feast knows of this workspace; windows, columns and words live in churnkit/signals/features.py."""

from churnkit.learning.targets import CHURN, EXPANSION, MAINTENANCE, configured
from churnkit.signals.store import repo

here = repo(__file__)

account = here.entity("account")
asset = here.entity("asset")

usage = here.view("usage")
support = here.view("support")
survey = here.view("survey")
billing = here.view("billing")
contract = here.view("contract")
relationship = here.view("relationship")
account_assets = here.view("account_assets")
equipment = here.view("asset")

globals().update(here.own)  # the groups of features.toml, each by its name

churn = here.service(configured(CHURN, here.settings))
expansion = here.service(configured(EXPANSION, here.settings))
maintenance = here.service(configured(MAINTENANCE, here.settings))
