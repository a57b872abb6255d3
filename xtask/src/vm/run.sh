# The guest's first process, in its root file system: runs the job. Its output goes to the second serial port, its errors to
# the third, its status to the fourth; the first is the console. Nothing else uses these.
export PATH=/run/vm/bin
stop() {
    echo "$1" >/dev/ttyS3
    poweroff -f
}
for port in 1 2 3; do stty -F /dev/ttyS$port raw -echo; done
hostname vm
ifconfig lo 127.0.0.1 up
cd /run/vm
# Sets job_folder, job_path, job_term and the words of the command.
. ./job
export HOME=/root TERM="$job_term" USER=root LOGNAME=root SHELL=/bin/sh

if [ $# -eq 0 ]; then
    shell=/bin/bash
    [ -x $shell ] || shell=/bin/sh
    export PS1='vm# '
    (cd "$job_folder"; PATH=$job_path exec /run/vm/bin/setsid /run/vm/bin/cttyhack $shell -i)
    stop "exit $?"
fi

mkfifo out err
cat <out >/dev/ttyS1 & cats=$!
cat <err >/dev/ttyS2 & cats="$cats $!"
(
    cd "$job_folder" || exit 125
    PATH=$job_path exec /run/vm/bin/setsid "$@"
) </dev/null >out 2>err
status=$?

# Whatever the job left behind holds the pipes open: it ends with the job. Only kernel threads and the dead have no exe.
for round in 1 2 3 4 5 6 7 8 9 10; do
    found=
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        case " 1 $cats " in *" $pid "*) continue ;; esac
        [ -n "$(readlink $process/exe)" ] && kill -9 $pid 2>/dev/null && found=yes
    done
    [ -n "$found" ] || break
done
wait $cats
stop "exit $status"
