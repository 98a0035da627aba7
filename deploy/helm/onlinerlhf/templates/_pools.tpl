{{/*
The rollout pools with every key they may have, as JSON: {name: pool}. A pool that the values name only in part gets the
rest from here, and room-wide values where it says nothing.
*/}}
{{- define "onlinerlhf.pools" -}}
{{- $rollout := .Values.rollout }}
{{- $pools := dict }}
{{- range $name, $given := $rollout.pools }}
{{- $autoscaling := dict "enabled" true "minReplicas" 1 "maxReplicas" 4 "priority" 0 "samplesPerReplica" 0 "usersPerReplica" 16 "scaleDownSeconds" 60 }}
{{- $pool := dict "autoscaling" $autoscaling "settings" dict "env" list "podAnnotations" dict "nodeSelector" dict "tolerations" list "affinity" dict "priorityClassName" "" "runtimeClassName" "" }}
{{- $pool = mergeOverwrite $pool (deepCopy ($given | default dict)) }}
{{- if not $pool.resources }}
{{- $_ := set $pool "resources" $rollout.resources }}
{{- end }}
{{- $_ := set $pool "env" (concat $rollout.env $pool.env) }}
{{- range $key := list "image" "drainSeconds" "preStopSeconds" "stagingSize" "cacheSize" "shmSize" }}
{{- $_ := set $pool $key (get $rollout $key) }}
{{- end }}
{{- $_ := set $pools $name $pool }}
{{- end }}
{{- toJson $pools }}
{{- end }}

{{/* Setting of a pool's workers. Arguments: root, pool, key, default (the code's). */}}
{{- define "onlinerlhf.poolSetting" -}}
{{- $key := .key }}
{{- if hasKey .pool.settings $key }}
{{- get .pool.settings $key | float64 | ceil | int64 }}
{{- else if hasKey .root.Values.rollout.settings $key }}
{{- get .root.Values.rollout.settings $key | float64 | ceil | int64 }}
{{- else }}
{{- .default }}
{{- end }}
{{- end }}

{{/* How long a worker may take from its start to its first version, by its own settings. */}}
{{- define "onlinerlhf.poolStartSeconds" -}}
{{- $start := include "onlinerlhf.poolSetting" (merge (dict "key" "start_timeout_seconds" "default" 600) .) | int64 }}
{{- $fetch := include "onlinerlhf.poolSetting" (merge (dict "key" "fetch_timeout_seconds" "default" 600) .) | int64 }}
{{- $apply := include "onlinerlhf.poolSetting" (merge (dict "key" "apply_timeout_seconds" "default" 120) .) | int64 }}
{{- add $start $fetch $apply }}
{{- end }}
