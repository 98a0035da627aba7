{{/* Our Redis's configuration and probe. */}}
{{- define "onlinerlhf.redisFiles" -}}
redis.conf: |
  # All interfaces; "-" leaves out a family that the pod does not have.
  bind * -::*
  port 6379
  protected-mode yes
  dir /data
  # An answered command is on disk: what was admitted, learned or revoked stays so after a crash.
  appendonly yes
  appendfsync always
  save ""
  # Work is refused at the bound, never evicted.
  maxmemory {{ include "onlinerlhf.redisMaxMemoryMib" . }}mb
  maxmemory-policy noeviction
  # requirepass, from the Secret.
  include /etc/redis-auth/auth.conf
probe.sh: |
  # probe.sh live|ready. The password goes by the environment, for arguments are seen by all.
  REDISCLI_AUTH="$(sed -n 's/^requirepass[ \t]*//p' /etc/redis-auth/auth.conf | tr -d '"')"
  export REDISCLI_AUTH
  answer="$(redis-cli -h 127.0.0.1 -p 6379 ping 2>&1)"
  case "$1 $answer" in
    *\ PONG) exit 0 ;;
    # A server that reads its file is alive, and must not be killed for it.
    live\ *LOADING*) exit 0 ;;
  esac
  echo "$answer"
  exit 1
{{- end }}

{{- define "onlinerlhf.redisMaxMemoryMib" -}}
{{- div (mul .Values.redis.memoryMib .Values.redis.maxMemoryPercent) 100 }}
{{- end }}
