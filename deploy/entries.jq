# Turns what `entry show -output json` prints into what `entry create -data FILE` takes:
#   spire-server entry show -output json | jq -f deploy/entries.jq > entries.json
#   trefoil entry create -data entries.json
# Entries keep their ids. The bundles that they federate with have to be set first (bundle set).
def id: "spiffe://" + .trust_domain + .path;
{entries: [.entries[]
	| .entry_id = .id
	| .spiffe_id |= id
	| .parent_id |= id
	| .entryExpiry = (.expires_at | tonumber)
	| del(.id, .expires_at, .revision_number, .created_at)]}
