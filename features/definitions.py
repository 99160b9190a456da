"""What Feast knows of this workspace; windows, columns and words live in churnkit/signals/features.py."""

from churnkit.learning.targets import CHURN, EXPANSION, MAINTENANCE
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

churn = here.service(CHURN)
expansion = here.service(EXPANSION)
maintenance = here.service(MAINTENANCE)
